// SPDX-License-Identifier: Apache-2.0

package ambient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Authority issues the certificates of a lab. Whoever can read its directory can be anyone in that lab.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

// The files of an Authority.
const (
	authorityCertificate = "ca.pem"
	authorityKey         = "ca-key.pem"
)

// lifetime is that of certificates: a lab does not live as long.
const lifetime = 365 * 24 * time.Hour

// NewAuthority makes an authority.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of authority: %w", err)
	}
	root, err := url.Parse("spiffe://" + TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("name authority: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "lab"}, URIs: []*url.URL{root},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of authority: %w", err)
	}
	return newAuthority(der, key)
}

func newAuthority(der []byte, key *ecdsa.PrivateKey) (*Authority, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate of authority: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return &Authority{certificate, key, pool}, nil
}

// Write puts the authority into a directory that is there.
func (a *Authority) Write(dir string) error {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("encode key of authority: %w", err)
	}
	for name, block := range map[string]*pem.Block{
		authorityCertificate: {Type: "CERTIFICATE", Bytes: a.certificate.Raw},
		authorityKey:         {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return fmt.Errorf("write authority: %w", err)
		}
	}
	return nil
}

// ReadAuthority reads what Write has written.
func ReadAuthority(dir string) (*Authority, error) {
	var der [2][]byte
	for i, name := range []string{authorityCertificate, authorityKey} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read authority: %w", err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, fmt.Errorf("read authority: %s is not PEM", filepath.Join(dir, name))
		}
		der[i] = block.Bytes
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der[1])
	if err != nil {
		return nil, fmt.Errorf("read key of authority: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key of authority: it is a %T", parsed)
	}
	return newAuthority(der[0], key)
}

// Issue makes a certificate for a SPIFFE id (SPIFFE X.509-SVID, section 2: one URI, which is the id).
func (a *Authority) Issue(id string) (*tls.Certificate, error) {
	uri, err := url.Parse(id)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", id, err)
	}
	template := &x509.Certificate{
		URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s: %w", id, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// client returns how a client with an identity talks to the server with another.
func (a *Authority) client(own *tls.Certificate, server string) *tls.Config {
	c := a.mutual(own, x509.ExtKeyUsageServerAuth, func(id string) error {
		if id != server {
			return fmt.Errorf("the peer is %s, and %s is wanted", id, server)
		}
		return nil
	})
	c.InsecureSkipVerify = true // of host names, which there are none of; VerifyConnection verifies
	return c
}

// server returns how a server with an identity talks to any client of the trust domain.
func (a *Authority) server(own *tls.Certificate) *tls.Config {
	c := a.mutual(own, x509.ExtKeyUsageClientAuth, func(string) error { return nil })
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

func (a *Authority) mutual(own *tls.Certificate, usage x509.ExtKeyUsage, accept func(id string) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*own},
		SessionTicketsDisabled: true, // a resumed session would not be one of certificates
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := a.verify(s.PeerCertificates, usage)
			if err != nil {
				return err
			}
			return accept(id)
		},
	}
}

// verify returns the SPIFFE id of a peer that this authority vouches for.
func (a *Authority) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) (string, error) {
	if len(chain) == 0 {
		return "", errors.New("the peer has no certificate")
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: a.pool, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return "", fmt.Errorf("verify peer: %w", err)
	}
	if uris := chain[0].URIs; len(uris) != 1 || uris[0].Scheme != "spiffe" || uris[0].Host != TrustDomain {
		return "", fmt.Errorf("the peer's certificate is for %v, which is no id of %s", uris, TrustDomain)
	}
	return chain[0].URIs[0].String(), nil
}
