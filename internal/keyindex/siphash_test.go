package keyindex

import "testing"

func TestHashesAreThoseOfTheReference(t *testing.T) {
	t.Parallel()
	s := seed{K0: 0x0706050403020100, K1: 0x0f0e0d0c0b0a0908}
	if h := s.hash(nil); h != (Hash{Lo: 0xe6a825ba047f81a3, Hi: 0x930255c71472f66d}) {
		t.Errorf("of nothing: %x %x", h.Lo, h.Hi)
	}
	if h := s.hash([]byte{0}); h != (Hash{Lo: 0x44af996bd8c187da, Hi: 0x45fc229b11597634}) {
		t.Errorf("of one byte: %x %x", h.Lo, h.Hi)
	}
}
