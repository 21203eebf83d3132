// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// carry is the only call of the only service.
var carry = grpc.StreamDesc{StreamName: "Carry", ServerStreams: true, ClientStreams: true}

const (
	grpcService = "evenkeel.flow.v1.Flow"
	// maxMessage leaves room for what protobuf adds.
	maxMessage = MaxSize + 64
)

// grpcConn is either end of a call.
type grpcConn struct {
	call interface {
		SendMsg(message any) error
		RecvMsg(message any) error
	}
	conn    *grpc.ClientConn // nil at a server
	out, in wrapperspb.BytesValue
}

func dialGRPC(ctx context.Context, socket net.Conn) (Conn, error) {
	dial := once(socket)
	conn, err := grpc.NewClient("passthrough:///"+socket.RemoteAddr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithIdleTimeout(0), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	// The call outlives what limits its beginning.
	call, err := conn.NewStream(context.WithoutCancel(ctx), &carry, "/"+grpcService+"/"+carry.StreamName)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &grpcConn{call: call, conn: conn}, nil
}

func serveGRPC(listener net.Listener, handle func(*Accepted)) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	described := carry
	described.Handler = func(_ any, call grpc.ServerStream) error {
		handle(&Accepted{Conn: &grpcConn{call: call}})
		return nil
	}
	server.RegisterService(&grpc.ServiceDesc{ServiceName: grpcService, Streams: []grpc.StreamDesc{described}}, nil)
	err := server.Serve(listener)
	server.Stop()
	return err
}

func (c *grpcConn) Send(frame []byte) error {
	c.out.Value = frame
	return c.call.SendMsg(&c.out)
}

func (c *grpcConn) Receive() ([]byte, error) {
	if err := c.call.RecvMsg(&c.in); err != nil {
		return nil, err
	}
	return c.in.Value, nil
}

func (c *grpcConn) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}
