//! Lists of small records in little memory. A report may hold the checks and seeded faults of fifty thousand cases, and
//! nearly all of them are looked at once: numbers stand apart from text, which most cases of a test have in common and
//! may share, and an item that is read borrows its text.

use crate::check_name::CheckName;
use crate::check_result::{CheckResult, Power, PowerStatus};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A list whose items are unpacked one by one as it is read. It serialises as a sequence.
#[derive(Clone, PartialEq)]
pub struct Packed<T> {
    /// All but the numbers.
    text: Arc<[u8]>,
    numbers: Box<[f64]>,
    of: PhantomData<T>,
}

/// What is known of other lists, for [`Packed::share`].
pub type Texts = HashSet<Arc<[u8]>>;

/// What can be packed and read back.
pub trait Item {
    /// An item that borrows its text.
    type View<'a>: Serialize + Deserialize<'a> + fmt::Debug;
    fn view(&self) -> Self::View<'_>;
    fn pack(item: &Self::View<'_>, to: &mut Packer);
    fn unpack<'a>(from: &mut Unpacker<'a>) -> Self::View<'a>;
}

/// A [`CheckResult`], as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckView<'a> {
    #[serde(borrow)]
    pub check: Cow<'a, str>,
    #[serde(borrow, default)]
    pub hop: Cow<'a, str>,
    pub value: Option<f64>,
    pub bound: Option<f64>,
    pub margin: Option<f64>,
    pub ok: bool,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub detail: Cow<'a, str>,
}

impl CheckView<'_> {
    /// Which check it is.
    pub fn name(&self) -> CheckName {
        CheckName::from(&*self.check)
    }
}

/// A [`Power`], as it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PowerView<'a> {
    #[serde(borrow)]
    pub fault: Cow<'a, str>,
    #[serde(borrow, default)]
    pub operand: Cow<'a, str>,
    pub status: PowerStatus,
    #[serde(borrow)]
    pub failed_checks: Vec<Name<'a>>,
    pub cos: Option<f64>,
    #[serde(default)]
    pub claimed: bool,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub detail: Cow<'a, str>,
}

/// A name in a list: serde borrows such text only through a type of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<T: Item> Packed<T> {
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { from: Unpacker { text: &self.text, numbers: &self.numbers }, of: PhantomData }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Gives up its own text where the same is known.
    pub fn share(&mut self, known: &mut Texts) {
        match known.get(&self.text) {
            Some(text) => self.text = text.clone(),
            None => drop(known.insert(self.text.clone())),
        }
    }
}

pub struct Iter<'a, T> {
    from: Unpacker<'a>,
    of: PhantomData<T>,
}

impl<'a, T: Item> Iterator for Iter<'a, T> {
    type Item = T::View<'a>;

    fn next(&mut self) -> Option<T::View<'a>> {
        (!self.from.text.is_empty()).then(|| T::unpack(&mut self.from))
    }
}

impl<T> Default for Packed<T> {
    fn default() -> Packed<T> {
        Packer::default().finish()
    }
}

impl<T: Item> FromIterator<T> for Packed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Packed<T> {
        let mut packed = Packed::default();
        packed.extend(items);
        packed
    }
}

impl<T: Item> Extend<T> for Packed<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        let mut packer = Packer { text: self.text.to_vec(), numbers: self.numbers.to_vec() };
        items.into_iter().for_each(|item| T::pack(&item.view(), &mut packer));
        *self = packer.finish();
    }
}

impl<T: Item> From<Vec<T>> for Packed<T> {
    fn from(items: Vec<T>) -> Packed<T> {
        items.into_iter().collect()
    }
}

impl<'a, T: Item> IntoIterator for &'a Packed<T> {
    type Item = T::View<'a>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T: Item> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<T: Item> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: Item> Deserialize<'de> for Packed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Packed<T>, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Item> Visitor<'de> for Items<T> {
            type Value = Packed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Packed<T>, A::Error> {
                let mut packer = Packer::default();
                while let Some(item) = items.next_element::<T::View<'de>>()? {
                    T::pack(&item, &mut packer);
                }
                Ok(packer.finish())
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[derive(Default)]
pub struct Packer {
    text: Vec<u8>,
    numbers: Vec<f64>,
}

impl Packer {
    fn finish<T>(self) -> Packed<T> {
        Packed { text: self.text.into(), numbers: self.numbers.into(), of: PhantomData }
    }

    /// Seven bits a byte, the lowest first.
    fn size(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.text.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.text.push(value as u8);
    }

    fn text(&mut self, text: &str) {
        self.size(text.len());
        self.text.extend_from_slice(text.as_bytes());
    }

    fn number(&mut self, number: Option<f64>) {
        self.text.push(u8::from(number.is_some()));
        self.numbers.extend(number);
    }
}

/// What is left to unpack. Only what a [`Packer`] wrote is ever read.
pub struct Unpacker<'a> {
    text: &'a [u8],
    numbers: &'a [f64],
}

impl<'a> Unpacker<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.text.split_first().expect("a byte was packed");
        self.text = rest;
        *first
    }

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

    fn text(&mut self) -> Cow<'a, str> {
        let size = self.size();
        let (text, rest) = self.text.split_at(size);
        self.text = rest;
        Cow::Borrowed(std::str::from_utf8(text).expect("a string was packed"))
    }

    fn number(&mut self) -> Option<f64> {
        (self.byte() != 0).then(|| {
            let (first, rest) = self.numbers.split_first().expect("a number was packed");
            self.numbers = rest;
            *first
        })
    }
}

impl Item for CheckResult {
    type View<'a> = CheckView<'a>;

    fn view(&self) -> CheckView<'_> {
        let CheckResult { check, hop, value, bound, margin, ok, detail } = self;
        let (check, hop, detail) = (check.name().into(), hop.into(), detail.into());
        CheckView { check, hop, value: *value, bound: *bound, margin: *margin, ok: *ok, detail }
    }

    fn pack(item: &CheckView<'_>, to: &mut Packer) {
        let CheckView { check, hop, value, bound, margin, ok, detail } = item;
        to.text(check);
        to.text(hop);
        [value, bound, margin].into_iter().for_each(|n| to.number(*n));
        to.text.push(u8::from(*ok));
        to.text(detail);
    }

    fn unpack<'a>(from: &mut Unpacker<'a>) -> CheckView<'a> {
        CheckView {
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
    type View<'a> = PowerView<'a>;

    fn view(&self) -> PowerView<'_> {
        let Power { fault, operand, status, failed_checks, cos, claimed, detail } = self;
        PowerView {
            fault: fault.into(),
            operand: operand.into(),
            status: *status,
            failed_checks: failed_checks.iter().map(|name| Name(name.into())).collect(),
            cos: *cos,
            claimed: *claimed,
            detail: detail.into(),
        }
    }

    fn pack(item: &PowerView<'_>, to: &mut Packer) {
        let PowerView { fault, operand, status, failed_checks, cos, claimed, detail } = item;
        to.text(fault);
        to.text(operand);
        to.text.push(*status as u8);
        to.size(failed_checks.len());
        failed_checks.iter().for_each(|check| to.text(&check.0));
        to.number(*cos);
        to.text.push(u8::from(*claimed));
        to.text(detail);
    }

    fn unpack<'a>(from: &mut Unpacker<'a>) -> PowerView<'a> {
        let statuses = [PowerStatus::Seen, PowerStatus::Unseen, PowerStatus::NotApplicable];
        PowerView {
            fault: from.text(),
            operand: from.text(),
            status: statuses[usize::from(from.byte())],
            failed_checks: (0..from.size()).map(|_| Name(from.text())).collect(),
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
            check("", Some(f64::MAX), "é\n".into()),
        ]
    }

    fn power() -> Vec<Power> {
        let statuses = [PowerStatus::Seen, PowerStatus::Unseen, PowerStatus::NotApplicable];
        let power = statuses.map(|status| Power {
            fault: "scale_layout".into(),
            operand: "w".into(),
            status,
            failed_checks: ["cos", "gain"].map(String::from).to_vec(),
            cos: Some(0.15),
            claimed: status == PowerStatus::Unseen,
            detail: "why".into(),
        });
        power.to_vec()
    }

    /// What a list reads as.
    fn json(list: &impl Serialize) -> String {
        serde_json::to_string(list).unwrap()
    }

    #[test]
    fn what_was_packed_is_unpacked_in_its_order() {
        let mut packed = Packed::from(checks());
        assert_eq!(json(&packed), json(&checks()));
        packed.extend(checks());
        assert_eq!(json(&packed), json(&[checks(), checks()].concat()));
        assert_eq!(json(&Packed::from(power())), json(&power()));
        assert!(Packed::<Power>::default().is_empty() && !packed.is_empty());
    }

    #[test]
    fn lists_that_differ_in_numbers_alone_share_the_rest() {
        let mut others = checks();
        others[0].value = Some(0.2);
        let (mut one, mut other) = (Packed::from(checks()), Packed::from(others.clone()));
        let mut known = Texts::default();
        one.share(&mut known);
        other.share(&mut known);
        assert!(Arc::ptr_eq(&one.text, &other.text));
        assert_eq!((json(&one), json(&other)), (json(&checks()), json(&others)));
        // Whether there is a number belongs to the text.
        others[0].value = None;
        let mut third = Packed::from(others.clone());
        third.share(&mut known);
        assert!(!Arc::ptr_eq(&one.text, &third.text));
        assert_eq!(json(&third), json(&others));
    }

    #[test]
    fn it_is_read_from_the_list_that_it_writes() {
        let checks = Packed::from(checks());
        assert_eq!(checks, serde_json::from_str(&json(&checks)).unwrap());
        let power = Packed::from(power());
        assert_eq!(power, serde_json::from_str(&json(&power)).unwrap());
        // From a reader no text can be borrowed.
        assert_eq!(power, serde_json::from_reader(json(&power).as_bytes()).unwrap());
        serde_json::from_str::<Packed<CheckResult>>("[{\"check\": \"cos\"}]").unwrap_err();
    }
}
