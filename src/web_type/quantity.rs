//! Quantities of memory and processor time as Kubernetes writes them: `512Mi`, `1.5G`, `250m`, `0.5`.
//!
//! The grammar and the canonical form are those of `k8s.io/apimachinery/pkg/api/resource`.

use std::fmt;

/// The longest text.
const MAX_LEN: usize = 32;
/// Billionths in one: the smallest part that Kubernetes keeps.
pub const ONE: u128 = 1_000_000_000;
/// The largest value, in ones: what fits into a signed 64-bit number.
const MAX: u128 = i64::MAX as u128;
/// Suffixes of powers of 1024, the first power first.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Suffixes of powers of 1000, from billionths on.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

/// A quantity, more than zero, exact to a billionth.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    billionths: u128,
    is_binary: bool,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not follow the grammar.
    #[error("not a number with a unit such as m, M, Mi, G or Gi")]
    Malformed,
    /// Zero or less.
    #[error("not more than 0")]
    NotPositive,
    /// More than 2^63 - 1.
    #[error("too large")]
    TooLarge,
}

impl Quantity {
    /// Parses a quantity. Digits below a billionth round up.
    ///
    /// # Errors
    /// As [`QuantityError`] says.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        if text.len() > MAX_LEN {
            return Err(QuantityError::Malformed);
        }
        let (is_negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Malformed);
        }
        let fraction = fraction.trim_end_matches('0');
        let digits = [whole, fraction].concat();
        let mantissa: u128 = digits.parse().map_err(|_| QuantityError::Malformed)?;
        let unit = Unit::parse(suffix).ok_or(QuantityError::Malformed)?;
        if is_negative || mantissa == 0 {
            return Err(QuantityError::NotPositive);
        }
        let divided = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
        let billionths = unit.billionths(mantissa, divided).filter(|&value| value <= MAX * ONE);
        let billionths = billionths.ok_or(QuantityError::TooLarge)?;
        Ok(Self { billionths, is_binary: matches!(unit, Unit::Binary(_)) })
    }

    /// This part of it, rounded up to a multiple of `step` billionths.
    pub fn divided_by(self, parts: u128, step: u128) -> Self {
        let part = self.billionths.div_ceil(parts.max(1));
        Self { billionths: part.div_ceil(step.max(1)) * step.max(1), ..self }
    }

    /// Rounded up to a multiple of `step` billionths.
    pub fn rounded_up_to(self, step: u128) -> Self {
        self.divided_by(1, step)
    }
}

/// What a suffix multiplies by.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// This power of 1024.
    Binary(u32),
    /// This power of ten.
    Decimal(i32),
}

impl Unit {
    fn parse(suffix: &str) -> Option<Self> {
        if let Some(power) = BINARY.iter().position(|name| *name == suffix) {
            return Some(Self::Binary(u32::try_from(power).ok()? + 1));
        }
        if let Some(power) = DECIMAL.iter().position(|name| *name == suffix) {
            return Some(Self::Decimal(i32::try_from(power).ok()? * 3 - 9));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        exponent.parse().ok().map(Self::Decimal)
    }

    /// `mantissa / 10^divided` of this unit, rounded up; `None` if that is too large.
    fn billionths(self, mantissa: u128, divided: u32) -> Option<u128> {
        match self {
            Self::Binary(power) => {
                let scaled = mantissa.checked_mul(1024_u128.checked_pow(power)?)?.checked_mul(ONE)?;
                Some(scaled.div_ceil(10_u128.checked_pow(divided)?))
            }
            Self::Decimal(power) => {
                let power = i64::from(power) + 9 - i64::from(divided);
                let factor = u32::try_from(power.unsigned_abs()).ok().and_then(|power| 10_u128.checked_pow(power));
                match (power >= 0, factor) {
                    (true, factor) => mantissa.checked_mul(factor?),
                    (false, Some(divisor)) => Some(mantissa.div_ceil(divisor)),
                    // Less than a billionth.
                    (false, None) => Some(1),
                }
            }
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.billionths == other.billionths
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.billionths.cmp(&other.billionths)
    }
}

/// The canonical form: the largest unit without a fraction.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut suffix) = (self.billionths, "n");
        if self.is_binary && value.is_multiple_of(ONE) && value >= 1024 * ONE {
            (value, suffix) = (value / ONE, "");
            for name in BINARY {
                if !value.is_multiple_of(1024) {
                    break;
                }
                (value, suffix) = (value / 1024, name);
            }
        } else {
            for name in &DECIMAL[1..] {
                if !value.is_multiple_of(1000) {
                    break;
                }
                (value, suffix) = (value / 1000, name);
            }
        }
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).map_or_else(|error| error.to_string(), |quantity| quantity.to_string())
    }

    #[test]
    fn canonical_forms_are_those_of_the_api_server() {
        for (text, want) in [
            ("512Mi", "512Mi"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1", "1"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1023", "1023"),
            ("1000Ki", "1000Ki"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1G", "1G"),
            ("1.5G", "1500M"),
            ("1e3", "1k"),
            ("1E3", "1k"),
            ("1E", "1E"),
            ("12e-1", "1200m"),
            ("+1k", "1k"),
            ("0.125", "125m"),
            ("100u", "100u"),
            ("0.0000000001", "1n"),
            ("1e-2000000000", "1n"),
            ("0.3Ki", "307200m"),
            ("9223372036854775807", "9223372036854775807"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, want) in [
            ("", QuantityError::Malformed),
            ("Mi", QuantityError::Malformed),
            (".", QuantityError::Malformed),
            ("1.2.3", QuantityError::Malformed),
            ("1 Gi", QuantityError::Malformed),
            ("1gb", QuantityError::Malformed),
            ("1K", QuantityError::Malformed),
            ("1MiB", QuantityError::Malformed),
            ("1e", QuantityError::Malformed),
            ("1e+", QuantityError::Malformed),
            ("1e1.5", QuantityError::Malformed),
            ("--1", QuantityError::Malformed),
            ("٣Gi", QuantityError::Malformed),
            ("1000000000000000000000000000000000", QuantityError::Malformed),
            ("0", QuantityError::NotPositive),
            ("-1Gi", QuantityError::NotPositive),
            ("0.000", QuantityError::NotPositive),
            ("9223372036854775808", QuantityError::TooLarge),
            ("8Ei", QuantityError::TooLarge),
            ("1e19", QuantityError::TooLarge),
            ("1e2000000000", QuantityError::TooLarge),
        ] {
            assert_eq!(Quantity::parse(text), Err(want), "{text}");
        }
    }

    #[test]
    fn parts_round_up_to_whole_steps() {
        for (text, parts, step, want) in [
            ("512Mi", 2, ONE, "256Mi"),
            ("513Mi", 2, ONE, "262656Ki"),
            ("1G", 2, ONE, "500M"),
            ("3", 2, ONE, "2"),
            ("0.5", 4, ONE / 1000, "125m"),
            ("251m", 2, ONE / 1000, "126m"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().divided_by(parts, step).to_string(), want, "{text} / {parts}");
        }
    }

    proptest! {
        #[test]
        fn canonical_form_has_the_same_value(whole in 1..1_u64 << 40, fraction in "[0-9]{0,6}", suffix in "(n|u|m||k|M|Ki|Mi|e3|E-2)") {
            let quantity = Quantity::parse(&format!("{whole}.{fraction}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            // 1.953125Ki has no binary suffix. So it is 2000, and then 2k.
            let form = again.to_string();
            prop_assert_eq!(Quantity::parse(&form).unwrap().to_string(), form);
        }

        #[test]
        fn any_text_is_a_quantity_or_refused(text in "\\PC{0,40}") {
            if let Ok(quantity) = Quantity::parse(&text) {
                prop_assert!(quantity.billionths > 0 && quantity.billionths <= MAX * ONE);
            }
        }

        #[test]
        fn two_halves_are_the_whole_or_one_step_more(bytes in 1..1_u64 << 50) {
            let whole = Quantity::parse(&bytes.to_string()).unwrap();
            let twice = whole.divided_by(2, ONE).billionths * 2;
            prop_assert!(twice == whole.billionths || twice == whole.billionths + ONE);
        }
    }
}
