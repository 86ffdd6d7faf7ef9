//! Floats in JSON to the last bit, those that are no numbers included, which JSON has no numbers for.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Float {
    Number(f64),
    Bits(String),
}

impl From<f64> for Float {
    fn from(value: f64) -> Self {
        match value.is_finite() {
            true => Self::Number(value),
            false => Self::Bits(format!("{:016x}", value.to_bits())),
        }
    }
}

impl Float {
    fn value<E: Error>(self) -> Result<f64, E> {
        match self {
            Self::Number(value) => Ok(value),
            Self::Bits(bits) => u64::from_str_radix(&bits, 16)
                .map(f64::from_bits)
                .map_err(|_| E::custom(format!("expected a number or its bits, found {bits:?}"))),
        }
    }
}

/// For `#[serde(with = "…")]` on a number.
pub(crate) mod number {
    use super::*;

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        Float::from(*value).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Float::deserialize(deserializer)?.value()
    }
}

/// The same for numbers in a row.
pub(crate) mod numbers {
    use super::*;

    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|&value| Float::from(value)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        Vec::<Float>::deserialize(deserializer)?.into_iter().map(Float::value).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    #[test]
    fn floats_come_back_bit_for_bit() {
        #[derive(Serialize, Deserialize)]
        struct Floats(#[serde(with = "super::number")] f64, #[serde(with = "super::numbers")] Vec<f64>);
        let values = [0.1, -0.0, 1e300, 5e-324, 3.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for value in values {
            let text = serde_json::to_string(&Floats(value, values.to_vec())).unwrap();
            let Floats(one, many) = serde_json::from_str(&text).unwrap();
            assert_eq!(one.to_bits(), value.to_bits());
            assert!(many.iter().zip(values).all(|(found, value)| found.to_bits() == value.to_bits()));
        }
        assert!(serde_json::from_str::<Floats>(r#"["none", []]"#).is_err());
    }
}
