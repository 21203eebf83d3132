// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// relay is a TAP device: what is sent to it comes back when it is due, in the same order.
type relay struct {
	file       *os.File
	index      int
	queue      chan frame
	overflowed atomic.Uint64
	done       chan struct{}
}

type frame struct {
	data []byte
	due  time.Time
}

// queueLength is how many frames may be under way: 1 Gbit/s of full frames for an eighth of a second.
const queueLength = 10000

// newRelay makes a device in the namespace of the calling thread. It is gone when the process is.
func newRelay(i Impairment, number int) (r *relay, err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open TAP device: %w", err)
	}
	request, err := unix.NewIfreq(fmt.Sprintf("relay%d", number))
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make TAP device: %w", err)
	}
	r = &relay{file: os.NewFile(uintptr(fd), "tap"), queue: make(chan frame, queueLength), done: make(chan struct{})}
	device, err := netlink.LinkByName(request.Name())
	if err == nil {
		r.index = device.Attrs().Index
		// Nothing of its own may be on it: what it sends would come back as from the wire.
		err = os.WriteFile("/proc/sys/net/ipv6/conf/"+request.Name()+"/disable_ipv6", []byte("1"), 0)
	}
	if err == nil {
		// As long as any frame on the wire, so that the kernel cuts none up.
		err = errors.Join(netlink.LinkSetMTU(device, maximumMTU), netlink.LinkSetUp(device))
	}
	if err != nil {
		r.file.Close()
		return nil, fmt.Errorf("set up TAP device: %w", err)
	}
	random := rand.New(rand.NewPCG(i.Seed, uint64(number)))
	go r.read(func() time.Duration {
		if i.Jitter == 0 {
			return i.Delay
		}
		return i.Delay + time.Duration(random.Int64N(int64(i.Jitter)+1))
	})
	go r.write()
	return r, nil
}

// maximumMTU is what a TAP device takes (drivers/net/tun.c).
const maximumMTU = 65521

// read ends when the device is closed.
func (r *relay) read(delay func() time.Duration) {
	defer close(r.queue)
	buffer := make([]byte, 1<<16)
	for {
		n, err := r.file.Read(buffer)
		if err != nil {
			return
		}
		f := frame{append([]byte(nil), buffer[:n]...), time.Now().Add(delay())}
		select {
		case r.queue <- f:
		default:
			r.overflowed.Add(1)
		}
	}
}

func (r *relay) write() {
	defer close(r.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for f := range r.queue {
		if wait := time.Until(f.due); wait > 0 {
			timer.Reset(wait)
			<-timer.C
		}
		if _, err := r.file.Write(f.data); errors.Is(err, os.ErrClosed) {
			return
		} // any other error is of one frame: a wire may lose it
	}
}

func (r *relay) close() {
	r.file.Close()
	<-r.done
}
