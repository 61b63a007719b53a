//! Lists of small records in little memory. A report may hold the checks and seeded faults of fifty thousand cases, and
//! nearly all of them are looked at once: as bytes they take a sixth of what they take as strings and vectors.

use crate::record::{CheckResult, Power, PowerStatus};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// A list whose items are unpacked one by one as it is read. It serialises as a sequence.
#[derive(Clone, PartialEq)]
pub struct Packed<T> {
    bytes: Vec<u8>,
    len: usize,
    of: PhantomData<T>,
}

/// What can be written to bytes and read back.
pub trait Item: Sized {
    fn pack(&self, to: &mut Vec<u8>);
    fn unpack(from: &mut Bytes<'_>) -> Self;
}

impl<T: Item> Packed<T> {
    pub fn push(&mut self, item: T) {
        item.pack(&mut self.bytes);
        self.len += 1;
    }

    pub fn iter(&self) -> Iter<'_, T> {
        Iter { bytes: Bytes(&self.bytes), left: self.len, of: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

pub struct Iter<'a, T> {
    bytes: Bytes<'a>,
    left: usize,
    of: PhantomData<T>,
}

impl<T: Item> Iterator for Iter<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        Some(T::unpack(&mut self.bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: Item> ExactSizeIterator for Iter<'_, T> {}

impl<T> Default for Packed<T> {
    fn default() -> Packed<T> {
        Packed { bytes: Vec::new(), len: 0, of: PhantomData }
    }
}

impl<T: Item> Extend<T> for Packed<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
        self.bytes.shrink_to_fit();
    }
}

impl<T: Item> FromIterator<T> for Packed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Packed<T> {
        let mut packed = Packed::default();
        packed.extend(items);
        packed
    }
}

impl<T: Item> From<Vec<T>> for Packed<T> {
    fn from(items: Vec<T>) -> Packed<T> {
        items.into_iter().collect()
    }
}

impl<'a, T: Item> IntoIterator for &'a Packed<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Item + fmt::Debug> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<T: Item + Serialize> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: Item + Deserialize<'de>> Deserialize<'de> for Packed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed<T>, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Item + Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = Packed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Packed<T>, A::Error> {
                let mut packed = Packed::default();
                while let Some(item) = items.next_element()? {
                    packed.push(item);
                }
                packed.bytes.shrink_to_fit();
                Ok(packed)
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// What is left to unpack. Only what [`Item::pack`] wrote is ever read.
pub struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, n: usize) -> &[u8] {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// Seven bits a byte, the lowest first.
    fn size(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
            shift += 7;
        }
    }

    fn text(&mut self) -> String {
        let len = self.size();
        String::from_utf8(self.take(len).to_vec()).expect("a string was packed")
    }

    fn number(&mut self) -> Option<f64> {
        (self.byte() != 0)
            .then(|| f64::from_le_bytes(self.take(8).try_into().expect("eight bytes were taken")))
    }
}

fn put_size(to: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put_size(to, text.len());
    to.extend_from_slice(text.as_bytes());
}

fn put_number(to: &mut Vec<u8>, number: Option<f64>) {
    to.push(u8::from(number.is_some()));
    to.extend(number.iter().flat_map(|n| n.to_le_bytes()));
}

impl Item for CheckResult {
    fn pack(&self, to: &mut Vec<u8>) {
        let CheckResult { check, hop, value, bound, margin, ok, detail } = self;
        put_text(to, check);
        put_text(to, hop);
        [value, bound, margin].into_iter().for_each(|n| put_number(to, *n));
        to.push(u8::from(*ok));
        put_text(to, detail);
    }

    fn unpack(from: &mut Bytes<'_>) -> CheckResult {
        CheckResult {
            check: from.text(),
            hop: from.text(),
            value: from.number(),
            bound: from.number(),
            margin: from.number(),
            ok: from.byte() != 0,
            detail: from.text(),
        }
    }
}

impl Item for Power {
    fn pack(&self, to: &mut Vec<u8>) {
        let Power { fault, operand, status, failed_checks, cos, claimed, detail } = self;
        put_text(to, fault);
        put_text(to, operand);
        to.push(*status as u8);
        put_size(to, failed_checks.len());
        failed_checks.iter().for_each(|check| put_text(to, check));
        put_number(to, *cos);
        to.push(u8::from(*claimed));
        put_text(to, detail);
    }

    fn unpack(from: &mut Bytes<'_>) -> Power {
        let statuses = [PowerStatus::Seen, PowerStatus::Unseen, PowerStatus::NotApplicable];
        Power {
            fault: from.text(),
            operand: from.text(),
            status: statuses[usize::from(from.byte())],
            failed_checks: (0..from.size()).map(|_| from.text()).collect(),
            cos: from.number(),
            claimed: from.byte() != 0,
            detail: from.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checks() -> Vec<CheckResult> {
        let check = |check: &str, value: Option<f64>, detail: String| CheckResult {
            check: check.into(),
            hop: "xq".into(),
            value,
            bound: Some(-0.0),
            margin: None,
            ok: value.is_some(),
            detail,
        };
        vec![
            check("cos", Some(0.1), String::new()),
            check("größer", None, "x".repeat(20_000)),
            check("", Some(f64::MAX), "é".into()),
        ]
    }

    #[test]
    fn what_was_packed_is_unpacked_in_its_order() {
        let packed = Packed::from(checks());
        assert_eq!(packed.iter().collect::<Vec<_>>(), checks());
        assert_eq!((packed.len(), packed.iter().len()), (3, 3));
        let power =
            [PowerStatus::Seen, PowerStatus::Unseen, PowerStatus::NotApplicable].map(|status| Power {
                fault: "scale_layout".into(),
                operand: "w".into(),
                status,
                failed_checks: ["cos", "gain"].map(String::from).to_vec(),
                cos: Some(0.15),
                claimed: status == PowerStatus::Unseen,
                detail: "why".into(),
            });
        assert!(Packed::from(power.to_vec()).iter().eq(power));
    }

    #[test]
    fn it_serialises_as_the_list_that_it_is() {
        let text = serde_json::to_string(&checks()).unwrap();
        let packed: Packed<CheckResult> = serde_json::from_str(&text).unwrap();
        assert_eq!(packed, Packed::from(checks()));
        assert_eq!(serde_json::to_string(&packed).unwrap(), text);
        serde_json::from_str::<Packed<CheckResult>>("[{\"check\": \"cos\"}]").unwrap_err();
    }
}
