//! What flags and the library call the same things: values by their names, and mistakes by the flag that mends them.

use super::output::numbers;
use crate::error::Error;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::str::FromStr;
use strum::VariantNames;

/// Parses a value by its name; help and errors list all names.
pub fn names<T>() -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = strum::ParseError> + VariantNames + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(T::VARIANTS).try_map(|name| name.parse::<T>())
}

/// How the library begins to name what a flag of another name sets; of several flags the first that a command has is meant. All other
/// flags are called as the library's fields are.
const OTHER_NAMES: [(&str, &[&str]); 12] = [
    ("code_nonzeros", &["nonzeros"]),
    ("grids", &["grid"]),
    ("iterations", &["unrolled_iterations"]),
    ("limit", &["stripe_limits", "stripe_limit"]),
    ("nonzeros of", &["shallower_nonzeros", "nonzeros"]),
    ("number of layers", &["pursuit", "pursuits"]),
    ("pursuit.incoherence", &["incoherence"]),
    ("relative lambda", &["lambda_relative"]),
    ("seed", &["seed", "data_seed"]),
    ("sigma", &["noise"]),
    ("strides", &["stride"]),
    ("update", &["method"]),
];

/// The parts of configurations, whose keys the library names whole: flags are called as the last part is.
const PARTS: [&str; 6] =
    ["learning.unrolled.optimization.", "learning.unrolled.", "learning.", "data.", "optimization.", "rival."];

/// What the library advises to set, and the flag that does.
const ADVICE: [(&str, &str); 7] = [
    ("`grey`", "--grey"),
    ("`layout`", "--layout"),
    ("`missing`", "--missing"),
    ("`patch`", "--patch"),
    ("`resume`", "--resume"),
    ("`source`", "--data"),
    ("`update gradient`", "--method gradient"),
];

/// A message with flags in place of what the library calls them.
pub fn in_text(message: &str) -> String {
    ADVICE.iter().fold(message.to_owned(), |text, (setting, flag)| text.replace(setting, flag))
}

/// The flag among those of `T` that sets what the library calls by a name.
fn flag_of<T: Args>(what: &str) -> Option<Arg> {
    let command = T::augment_args(Command::new(""));
    let what = PARTS.iter().find_map(|part| what.strip_prefix(part)).unwrap_or(what);
    let find = |id: &str| command.get_arguments().find(|flag| flag.get_id() == id).cloned();
    let other = OTHER_NAMES.iter().find(|(beginning, _)| what.starts_with(beginning));
    match other.and_then(|(_, ids)| ids.iter().find_map(|id| find(id))) {
        Some(flag) => Some(flag),
        None => find(&what.replace([' ', '-'], "_")),
    }
}

/// Names a mistake by the flag among those of `T` that it came by, where there is one; of a part, such as one layer's, with that part.
pub fn named<T: Args>(error: Error) -> Error {
    let flag = |what: &str| Some(format!("--{}", flag_of::<T>(what)?.get_long()?));
    match error {
        Error::Parameter { parameter, value, expected } => {
            let parameter = match flag(&parameter) {
                Some(flag) if parameter.contains(" of ") => format!("{flag}, {parameter}"),
                Some(flag) => flag,
                None => parameter,
            };
            Error::Parameter { parameter, value, expected }
        }
        Error::Missing { parameter, expected } => {
            let parameter = flag(&parameter).unwrap_or(parameter);
            Error::Missing { parameter, expected }
        }
        Error::Shape { what, expected, found } => match flag(&what) {
            Some(flag) => Error::parameter(flag, numbers(&found), expected),
            None => Error::Shape { what, expected, found },
        },
        other => other,
    }
}

/// The flags that were given. It is filled in where a command's flags hold it before all others, by `#[command(flatten)]`.
#[derive(Debug, Clone, Default)]
pub struct Given(Vec<String>);

impl Given {
    /// Whether what the library calls by that name came by a flag among those of `T`.
    pub fn holds<T: Args>(&self, what: &str) -> bool {
        flag_of::<T>(what).is_some_and(|flag| self.0.iter().any(|given| flag.get_id() == given.as_str()))
    }
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Ok(Self(matches.ids().map(clap::Id::as_str).filter(given).map(str::to_owned).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::classify::ClassifyArgs;
    use crate::cli::coding::CodingArgs;
    use crate::cli::compare::CompareArgs;
    use crate::cli::data::DataArgs;
    use crate::cli::sample::SampleArgs;
    use crate::cli::train::TrainArgs;

    /// Every name that the library gives to what a flag of another name sets, once.
    #[test]
    fn mistakes_are_named_by_their_flags() {
        let said = |named: fn(Error) -> Error, what: &str| {
            let text = named(Error::parameter(what, 0, "more")).to_string();
            text.strip_suffix(" = 0: expected more").unwrap().to_owned()
        };
        for (named, what, flag) in [
            (named::<TrainArgs> as fn(Error) -> Error, "update", "--method"),
            (named::<TrainArgs>, "iterations", "--unrolled-iterations"),
            (named::<TrainArgs>, "batch_size", "--batch-size"),
            (named::<TrainArgs>, "source", "--data"),
            (named::<TrainArgs>, "seed", "--seed"),
            (named::<TrainArgs>, "learning.epochs", "--epochs"),
            (named::<TrainArgs>, "data.source", "--data"),
            (named::<TrainArgs>, "learning.unrolled.iterations", "--unrolled-iterations"),
            (named::<TrainArgs>, "learning.unrolled.optimization.learning_rate", "--learning-rate"),
            (named::<TrainArgs>, "optimization.learning_rate", "--learning-rate"),
            (named::<TrainArgs>, "learning.gradient.momentum", "learning.gradient.momentum"),
            (named::<DataArgs>, "seed", "--data-seed"),
            (named::<DataArgs>, "held_out", "held_out"),
            (named::<CodingArgs>, "lambda", "--lambda"),
            (named::<CodingArgs>, "relative lambda", "--lambda-relative"),
            (named::<CodingArgs>, "max_iterations", "--max-iterations"),
            (named::<CodingArgs>, "layer weights", "--layer-weights"),
            (named::<CodingArgs>, "limit of layer 2", "--stripe-limits, limit of layer 2"),
            (named::<CodingArgs>, "nonzeros of layer 1", "--nonzeros, nonzeros of layer 1"),
            (named::<CodingArgs>, "number of layers", "--pursuit, number of layers"),
            (named::<CompareArgs>, "nonzeros", "--nonzeros"),
            (named::<CompareArgs>, "nonzeros of layer 1", "--shallower-nonzeros, nonzeros of layer 1"),
            (named::<CompareArgs>, "pursuits", "--pursuits"),
            (named::<SampleArgs>, "limit of layer 1", "--stripe-limit, limit of layer 1"),
            (named::<ClassifyArgs>, "grids", "--grid"),
            (named::<ClassifyArgs>, "stride", "--stride"),
        ] {
            assert_eq!(said(named, what), flag);
        }
        let shape = |what: &str| named::<ClassifyArgs>(Error::shape(what, "2", 3)).to_string();
        assert_eq!(shape("strides of windows"), "--stride = 3 numbers: expected 2");
        assert_eq!(shape("signals of digits"), "signals of digits: expected 2, found 3");
    }
}
