package jwtauth

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/go-json-experiment/json"
	"github.com/golang-jwt/jwt/v5"
)

const minRSABits = 2048

// keySet holds the public keys of each algorithm apart, so that no key can serve an algorithm that it is not for,
// whatever a token's header asks.
type keySet map[string]keyfunc.Keyfunc

// find gives the key of the token's algorithm and kid, or all of the algorithm where it names no kid. A token's own
// jwk, jku, x5c and x5u headers are not looked at. The error is jwkset.ErrKeyNotFound where there is none.
func (s keySet) find(ctx context.Context, t *jwt.Token) (any, error) {
	keys, ok := s[t.Method.Alg()]
	if !ok {
		return nil, jwkset.ErrKeyNotFound
	}
	return keys.KeyfuncCtx(ctx)(t)
}

// parseKeySet takes from a JWK Set the keys that verify signatures of the given algorithms. Others are left out, since
// issuers publish theirs for encryption beside them; a set with one that is broken or weak is refused. A set without
// any, such as {"keys":[]}, is how an issuer revokes all: it is good, and has no key for anybody.
func parseKeySet(content []byte, algorithms []string) (keySet, error) {
	var jwks jwkset.JWKSMarshal
	if err := json.Unmarshal(content, &jwks); err != nil {
		return nil, errors.New("not a JSON Web Key Set")
	}
	if jwks.Keys == nil {
		return nil, errors.New("not a JSON Web Key Set: it has no list named keys")
	}
	storages := map[string]*jwkset.MemoryJWKSet{}
	for i, m := range jwks.Keys {
		alg := algorithmOf(m)
		if !slices.Contains(algorithms, alg) {
			continue
		}
		// Private is not set: the private half, where somebody published one, is not even read.
		jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		if pub, ok := jwk.Key().(*rsa.PublicKey); ok && pub.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("keys[%d]: an RSA key needs at least %d bits", i, minRSABits)
		}
		if storages[alg] == nil {
			storages[alg] = jwkset.NewMemoryStorage()
		}
		if err := storages[alg].KeyWrite(context.Background(), jwk); err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	set := keySet{}
	for alg, storage := range storages {
		keys, err := keyfunc.New(keyfunc.Options{Storage: storage})
		if err != nil {
			return nil, fmt.Errorf("keys for %s: %w", alg, err)
		}
		set[alg] = keys
	}
	return set, nil
}

// algorithmOf gives the one algorithm whose signatures m verifies, empty for none of ours.
func algorithmOf(m jwkset.JWKMarshal) string {
	alg := ""
	switch {
	case m.KTY == jwkset.KtyRSA:
		alg = RS256
	case m.KTY == jwkset.KtyEC && m.CRV == jwkset.CrvP256:
		alg = ES256
	case m.KTY == jwkset.KtyOKP && m.CRV == jwkset.CrvEd25519:
		alg = EdDSA
	}
	if m.ALG != "" && m.ALG.String() != alg ||
		m.USE != "" && m.USE != jwkset.UseSig ||
		len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return ""
	}
	return alg
}
