// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// identity is the key that every server has and every client expects. It is no secret: it proves that the bytes went
// through TLS unchanged, not who sent them.
var identity = ed25519.NewKeyFromSeed(func() []byte {
	seed := sha256.Sum256([]byte("evenkeel flow"))
	return seed[:]
}())

// certificate returns a self-signed one with the identity.
func certificate() (tls.Certificate, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0),
		NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} // RFC 5280, section 4.1.2.5: it does not expire
	der, err := x509.CreateCertificate(nil, template, template, identity.Public(), identity)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: identity}, nil
}

func dialTLS(ctx context.Context, socket net.Conn) (Conn, error) {
	conn := tls.Client(socket, &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // there is no name to verify: the key is, below
		VerifyConnection: func(state tls.ConnectionState) error {
			if !identity.Public().(ed25519.PublicKey).Equal(state.PeerCertificates[0].PublicKey) {
				return errors.New("the server has another key: something on the way speaks TLS itself")
			}
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return newStream(conn, conn), nil
}

func serveTLS(listener net.Listener, handle func(*Accepted)) error {
	own, err := certificate()
	if err != nil {
		return err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}}
	return serveSockets(listener, func(socket Socket) {
		conn := tls.Server(socket, config)
		// The handshake is part of the first read; if it fails the client says why.
		handle(accepted(newStream(conn, conn), socket))
	})
}
