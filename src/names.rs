//! Values that are chosen by name: in configurations, in files, on a command line.
//!
//! Every enumeration of that kind derives its names by `strum`, the same that `serde` reads and writes: `into_str` is a value's name,
//! [`VariantNames::VARIANTS`] are all names, [`IntoEnumIterator::iter`] runs through all values.

use crate::error::{Error, Result};
use std::str::FromStr;
pub use strum::{IntoEnumIterator, VariantNames};

/// The value that a name stands for, as `parameter`.
///
/// # Errors
/// An unknown name, with all that there are.
pub fn named<T: FromStr + VariantNames>(parameter: &str, name: &str) -> Result<T> {
    name.parse()
        .map_err(|_| Error::parameter(parameter, format!("{name:?}"), format!("one of {}", T::VARIANTS.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoencoder::config::UnrolledPursuit;
    use crate::autoencoder::network::NetworkPursuit;
    use crate::classify::{Loss, PoolingMethod, Rectification, Scaling};
    use crate::data::Split;
    use crate::learn::config::{GradientMode, UpdateRule};
    use crate::model::OperatorForm;
    use crate::model::normalization::Normalization;
    use crate::model::preset::Preset;
    use crate::pursuit::{Algorithm, PursuitName, StopReason, Threshold};
    use serde::Serialize;
    use serde::de::DeserializeOwned;
    use std::fmt::{Debug, Display};

    fn is_written<T>()
    where
        T: IntoEnumIterator + VariantNames + FromStr + Serialize + Display + PartialEq + Debug,
        T::Err: Debug,
    {
        assert!(T::iter().count() > 1);
        assert!(T::iter().map(|value| value.to_string()).eq(T::VARIANTS.iter().copied()));
        for value in T::iter() {
            let name = value.to_string();
            assert_eq!(serde_json::to_value(&value).unwrap(), serde_json::json!(name));
            assert_eq!(name.parse::<T>().unwrap(), value);
        }
    }

    fn is_read<T>()
    where
        T: IntoEnumIterator + VariantNames + FromStr + Serialize + DeserializeOwned + Display + PartialEq + Debug,
        T::Err: Debug,
    {
        is_written::<T>();
        for value in T::iter() {
            assert_eq!(serde_json::from_value::<T>(serde_json::json!(value.to_string())).unwrap(), value);
        }
    }

    #[test]
    fn names_are_the_same_wherever_they_are_read_and_written() {
        is_read::<crate::device::Precision>();
        is_read::<Algorithm>();
        is_read::<GradientMode>();
        is_read::<Loss>();
        is_read::<NetworkPursuit>();
        is_read::<Normalization>();
        is_read::<OperatorForm>();
        is_read::<PoolingMethod>();
        is_read::<Preset>();
        is_read::<Rectification>();
        is_read::<Scaling>();
        is_read::<Split>();
        is_read::<StopReason>();
        is_read::<Threshold>();
        is_read::<UnrolledPursuit>();
        is_read::<UpdateRule>();
        is_written::<PursuitName>();
    }

    #[test]
    fn names_of_earlier_files_are_read() {
        let read = |name: &str| serde_json::json!(name);
        assert_eq!(serde_json::from_value::<Loss>(read("squared-hinge")).unwrap(), Loss::SquaredHinge);
        assert_eq!(serde_json::from_value::<Threshold>(read("non-negative")).unwrap(), Threshold::NonNegative);
        assert_eq!(
            serde_json::from_value::<NetworkPursuit>(read("thresholding")).unwrap(),
            NetworkPursuit::Thresholding
        );
        let layered = serde_json::from_value::<NetworkPursuit>(read("layered-basis-pursuit"));
        assert_eq!(layered.unwrap(), NetworkPursuit::LayeredBasisPursuit);
    }

    #[test]
    fn unknown_names_are_refused_with_those_that_there_are() {
        let message = named::<Preset>("preset", "large").unwrap_err().to_string();
        assert_eq!(message, "preset = \"large\": expected one of small, mnist, natural, natural-colour");
        assert_eq!(named::<PursuitName>("pursuit", "ml-bp").unwrap(), PursuitName::MlBasisPursuit);
    }
}
