//! Numbers as they stand in tables: enough digits to tell what matters apart, and no more.

/// Seven decimals: a correct kernel with bfloat16 output is at 0.9999986, and one that accumulates in float16 may
/// differ from it in the sixth.
pub fn cosine(value: f64) -> String {
    // What is not 1 is not to look like it.
    if value < 1.0 && value > 0.99999995 { "0.9999999".into() } else { format!("{value:.7}") }
}

pub fn gain(value: f64) -> String {
    format!("{value:.4}")
}

/// Two significant digits, as errors are compared by magnitude.
pub fn small(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

/// Any value of a check.
pub fn any(value: Option<f64>) -> String {
    match value {
        None => "none".into(),
        // Adding zero takes the sign from a zero.
        Some(value) if value == value.trunc() && value.abs() < 1e9 => format!("{}", value + 0.0),
        Some(value) if (0.1..10.0).contains(&value.abs()) => format!("{value:.7}"),
        Some(value) => format!("{value:.3e}"),
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
    fn a_cosine_below_one_never_reads_as_one() {
        assert_eq!(cosine(1.0), "1.0000000");
        assert_eq!(cosine(1.0 - 1e-12), "0.9999999");
        assert_eq!(cosine(0.9999986), "0.9999986");
        assert_eq!(cosine(-0.003), "-0.0030000");
    }

    #[test]
    fn values_keep_their_magnitude() {
        assert_eq!(any(Some(0.0)), "0");
        assert_eq!(any(Some(-0.0)), "0");
        assert_eq!(any(Some(64.0)), "64");
        assert_eq!(any(Some(0.9990001)), "0.9990001");
        assert_eq!(any(Some(0.00123)), "1.230e-3");
        assert_eq!(any(None), "none");
        assert_eq!(small(0.0371), "3.7e-2");
    }

    #[test]
    fn one_is_singular_and_thousands_are_set_apart() {
        assert_eq!(counted(1_u64, "line"), "1 line");
        assert_eq!(counted(0_usize, "line"), "0 lines");
        assert_eq!(counted(1_234_567_u64, "error"), "1,234,567 errors");
    }
}
