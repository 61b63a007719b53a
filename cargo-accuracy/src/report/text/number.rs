//! Numbers as they stand in tables: enough digits to tell what matters apart, and no more.

use accuracy_core::verdict::{cosine_text, short};

/// Six decimals, and what is below 1 does not read as 1.
pub fn cosine(value: f64) -> String {
    cosine_text(value)
}

pub fn gain(value: f64) -> String {
    if value.abs() < 10.0 { format!("{value:.4}") } else { short(value) }
}

/// Two significant digits, as errors are compared by magnitude.
pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// Any value of a check, with at most six digits that count.
pub fn any(value: Option<f64>) -> String {
    match value {
        None => "none".into(),
        Some(value) if (0.999_999_5..1.0).contains(&value) => cosine_text(value),
        // Adding zero takes the sign from a zero.
        Some(value) => short(value + 0.0),
    }
}

/// `1 file`, `2,000 files`.
pub fn counted(count: impl TryInto<u64>, what: &str) -> String {
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{} {what}{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// With a comma between thousands.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_magnitude_and_have_six_digits_at_most() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (64.0, "64"),
            (0.9990001, "0.999"),
            (1.0 - 1e-12, "0.999999"),
            (0.00123, "0.00123"),
            (1.7439508, "1.74395"),
            (-30.478_912, "-30.4789"),
            (11_534_336.0, "1.15343e7"),
            (1.234_567_8e-9, "1.23457e-9"),
        ] {
            assert_eq!(any(Some(value)), text);
        }
        assert_eq!(any(None), "none");
        assert_eq!(small(0.0371), "3.7e-2");
        assert_eq!((gain(1.0002).as_str(), gain(12.345_678).as_str()), ("1.0002", "12.3457"));
    }

    #[test]
    fn one_is_singular_and_thousands_are_set_apart() {
        assert_eq!(counted(1_u64, "line"), "1 line");
        assert_eq!(counted(0_usize, "line"), "0 lines");
        assert_eq!(counted(1_234_567_u64, "error"), "1,234,567 errors");
    }
}
