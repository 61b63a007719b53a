//! The buffers that a test declares, as they lie in the memory of the emulated device: names for addresses.

/// A declared buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    pub name: String,
    /// Address of its first byte, and its bytes up to its last element.
    pub start: u64,
    pub bytes: u64,
    /// Start and end of the allocation that it lies in, which is its own.
    pub around: (u64, u64),
    /// How its elements lie; none where they have an order of their own.
    pub rows: Option<Rows>,
    /// Bits of an element.
    pub element: u64,
}

/// Elements in runs, a run behind the other: rows, or columns of a transposed buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub runs: u64,
    /// Bits of the elements of a run, and from one run to the next.
    pub bits: u64,
    pub stride: u64,
    /// Bits of an element.
    pub element: u64,
    pub transposed: bool,
}

/// What an access outside of a buffer's elements touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Memory so many bytes before the buffer or behind it; `partly` where the rest of the access is within the buffer.
    Before {
        name: String,
        distance: u64,
        partly: bool,
    },
    Behind {
        name: String,
        distance: u64,
        partly: bool,
    },
    /// The padding behind a row, or a column of a transposed buffer, so many bytes behind its last element.
    Padding {
        name: String,
        run: u64,
        distance: u64,
        transposed: bool,
    },
}

/// The buffer in whose allocation an address lies. Buffers are in the order of their addresses.
pub fn find(declared: &[Declared], address: u64) -> Option<&Declared> {
    let after = declared.partition_point(|buffer| buffer.around.0 <= address);
    declared[..after].last().filter(|buffer| address < buffer.around.1)
}

/// What of some bytes is outside of the elements of the buffer in whose allocation they lie.
pub fn outside(declared: &[Declared], address: u64, bytes: u64) -> Option<Outside> {
    let buffer = find(declared, address)?;
    let name = || buffer.name.clone();
    let end = buffer.start + buffer.bytes;
    if address < buffer.start {
        let partly = address + bytes > buffer.start;
        return Some(Outside::Before { name: name(), distance: buffer.start - address, partly });
    }
    if address + bytes > end {
        let partly = address < end;
        return Some(Outside::Behind { name: name(), distance: address.saturating_sub(end), partly });
    }
    let rows = buffer.rows.filter(|rows| rows.stride > rows.bits)?;
    let from = 8 * (address - buffer.start);
    let (run, inside) = (from / rows.stride, from % rows.stride);
    let distance = inside.saturating_sub(rows.bits) / 8;
    (inside + 8 * bytes > rows.bits).then(|| Outside::Padding {
        name: name(),
        run,
        distance,
        transposed: rows.transposed,
    })
}

impl Outside {
    /// Whether a vector that reads what is there may have its other elements in the buffer, so that this one is masked
    /// afterwards.
    pub fn may_be_masked(&self) -> bool {
        match self {
            Outside::Before { partly, .. } | Outside::Behind { partly, .. } => *partly,
            Outside::Padding { .. } => true,
        }
    }
}

impl Declared {
    /// Row and column of the element at an address.
    pub fn element(&self, address: u64) -> Option<(u64, u64)> {
        let rows = self.rows?;
        let from = 8 * address.checked_sub(self.start).filter(|offset| *offset < self.bytes)?;
        let (run, inside) = (from / rows.stride, from % rows.stride);
        let at = (inside < rows.bits).then_some(inside / rows.element)?;
        Some(if rows.transposed { (at, run) } else { (run, at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows of five 16-bit elements, 16 bytes apart, at 0x1000.
    fn buffer(transposed: bool) -> Declared {
        let rows = Rows { runs: 3, bits: 80, stride: 128, element: 16, transposed };
        Declared {
            name: "x".into(),
            start: 0x1000,
            bytes: 42,
            around: (0xf00, 0x1100),
            rows: Some(rows),
            element: 16,
        }
    }

    #[test]
    fn an_address_has_a_row_and_a_column() {
        assert_eq!(buffer(false).element(0x1000), Some((0, 0)));
        assert_eq!(buffer(false).element(0x1018), Some((1, 4)));
        assert_eq!(buffer(true).element(0x1018), Some((4, 1)));
        assert_eq!(buffer(false).element(0x101a), None);
        assert_eq!(buffer(false).element(0x102a), None);
    }

    #[test]
    fn what_is_outside_of_a_buffer_is_told_from_the_padding_of_its_rows() {
        let at = |address, bytes| outside(&[buffer(false)], address, bytes);
        let name = || "x".to_owned();
        assert_eq!(at(0x1000, 2), None);
        assert_eq!(at(0x1008, 2), None);
        let padding = |run, distance| Outside::Padding { name: name(), run, distance, transposed: false };
        assert_eq!(at(0x1008, 4), Some(padding(0, 0)));
        assert_eq!(at(0x101c, 4), Some(padding(1, 2)));
        let before = |distance, partly| Outside::Before { name: name(), distance, partly };
        assert_eq!(at(0xffc, 4), Some(before(4, false)));
        assert_eq!(at(0xffe, 4), Some(before(2, true)));
        let behind = |distance, partly| Outside::Behind { name: name(), distance, partly };
        assert_eq!(at(0x1028, 4), Some(behind(0, true)));
        assert_eq!(at(0x102a, 4), Some(behind(0, false)));
        assert_eq!(at(0x102e, 4), Some(behind(4, false)));
        assert_eq!(at(0x2000, 4), None);
    }
}
