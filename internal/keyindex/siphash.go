package keyindex

import (
	"encoding/binary"
	"math/bits"
)

// Hash is what an index knows of a key.
type Hash struct{ Hi, Lo uint64 }

// seed is SipHash's secret.
type seed struct{ K0, K1 uint64 }

// sip is the state of SipHash-2-4 with 128 bits of output (Aumasson and Bernstein).
type sip struct{ v0, v1, v2, v3 uint64 }

func (s seed) begin() sip {
	return sip{
		v0: s.K0 ^ 0x736f6d6570736575,
		v1: s.K1 ^ 0x646f72616e646f6d ^ 0xee,
		v2: s.K0 ^ 0x6c7967656e657261,
		v3: s.K1 ^ 0x7465646279746573,
	}
}

func (s *sip) round() {
	s.v0 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 13) ^ s.v0
	s.v0 = bits.RotateLeft64(s.v0, 32)
	s.v2 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 16) ^ s.v2
	s.v0 += s.v3
	s.v3 = bits.RotateLeft64(s.v3, 21) ^ s.v0
	s.v2 += s.v1
	s.v1 = bits.RotateLeft64(s.v1, 17) ^ s.v2
	s.v2 = bits.RotateLeft64(s.v2, 32)
}

func (s *sip) word(m uint64) {
	s.v3 ^= m
	s.round()
	s.round()
	s.v0 ^= m
}

// end closes with the last word, which holds the length.
func (s *sip) end(last uint64) Hash {
	s.word(last)
	s.v2 ^= 0xee
	s.round()
	s.round()
	s.round()
	s.round()
	lo := s.v0 ^ s.v1 ^ s.v2 ^ s.v3
	s.v1 ^= 0xdd
	s.round()
	s.round()
	s.round()
	s.round()
	return Hash{Hi: s.v0 ^ s.v1 ^ s.v2 ^ s.v3, Lo: lo}
}

func (s seed) hash(key []byte) Hash {
	h := s.begin()
	n := uint64(len(key))
	for ; len(key) >= 8; key = key[8:] {
		h.word(binary.LittleEndian.Uint64(key))
	}
	last := n << 56
	for i, c := range key {
		last |= uint64(c) << (8 * i)
	}
	return h.end(last)
}

// derived is the n-th hash that follows from another one.
func (s seed) derived(of Hash, n uint64) Hash {
	h := s.begin()
	h.word(of.Hi)
	h.word(of.Lo)
	h.word(n)
	return h.end(24<<56 | 1)
}
