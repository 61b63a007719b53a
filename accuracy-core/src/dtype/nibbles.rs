//! The orders in which eight nibbles share 32 bits.

/// Which element each nibble of a little-endian 32-bit word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NibbleOrder {
    /// Element `i` in nibble `i`: GPTQ, compressed-tensors, and FP4 bytes.
    LowFirst,
    /// AutoAWQ's "gemm": nibble `i` holds element `[0, 2, 4, 6, 1, 3, 5, 7][i]`. Quark calls it "reorder".
    Awq,
    /// Elements `i` and `i + 4` share a byte: nibble `i` holds element `[0, 4, 1, 5, 2, 6, 3, 7][i]`. aiter's
    /// `pack_int8_to_packed_int4`.
    Halves,
}

impl NibbleOrder {
    /// The element that each nibble holds.
    pub fn elements(self) -> [usize; 8] {
        match self {
            NibbleOrder::LowFirst => [0, 1, 2, 3, 4, 5, 6, 7],
            NibbleOrder::Awq => [0, 2, 4, 6, 1, 3, 5, 7],
            NibbleOrder::Halves => [0, 4, 1, 5, 2, 6, 3, 7],
        }
    }

    /// The nibble that holds `element`, which is below 8.
    pub fn nibble(self, element: usize) -> usize {
        match self {
            NibbleOrder::LowFirst => element,
            // The two are each other's inverse.
            NibbleOrder::Awq => NibbleOrder::Halves.elements()[element],
            NibbleOrder::Halves => NibbleOrder::Awq.elements()[element],
        }
    }

    /// The place of a code among words of eight, in which it is the `at`th in order.
    pub fn place(self, at: usize) -> usize {
        at / 8 * 8 + self.nibble(at % 8)
    }

    /// The code of `element` in `word`.
    pub fn get(self, word: u32, element: usize) -> u32 {
        word >> (4 * self.nibble(element)) & 0xf
    }

    /// A word of eight codes.
    pub fn pack(self, codes: [u32; 8]) -> u32 {
        let nibbles = codes.iter().enumerate();
        nibbles.fold(0, |word, (element, code)| word | (code & 0xf) << (4 * self.nibble(element)))
    }
}
