//! Parts of a set of signals, for several processes that share the work on it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Part `index` of `of`, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "[usize; 2]", into = "[usize; 2]")]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// Part `index` of `of`.
    ///
    /// # Errors
    /// An index that is not one of 1, …, `of`.
    pub fn new(index: usize, of: usize) -> Result<Self> {
        let wrong = |expected: String| Err(Error::parameter("shard", format!("{index}/{of}"), expected));
        match (index, of) {
            (_, 0) => wrong("I/N, part I of N ≥ 1".into()),
            (0, of) => {
                wrong(format!("parts counted from 1: 1/{of}, …, {of}/{of}; of tasks counted from 0 their number + 1"))
            }
            (index, of) if index > of => wrong(format!("1/{of}, …, {of}/{of}")),
            _ => Ok(Self { index, of }),
        }
    }

    /// Its number, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// How many parts there are.
    pub fn of(self) -> usize {
        self.of
    }

    /// Which of `count` things in a row are its own: as many as any other part's, or one more.
    pub fn range(self, count: usize) -> Range<usize> {
        // Exact where the product would not fit.
        let until = |index: usize| (index as u128 * count as u128 / self.of as u128) as usize;
        until(self.index - 1)..until(self.index)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(index, of)| Some((index.trim().parse().ok()?, of.trim().parse().ok()?)));
        match numbers {
            Some((index, of)) => Self::new(index, of).map_err(|error| match error {
                Error::Parameter { expected, .. } => format!("expected {expected}"),
                other => other.to_string(),
            }),
            None => Err("expected I/N, part I of N, counted from 1, as 3/8".into()),
        }
    }
}

impl TryFrom<[usize; 2]> for Shard {
    type Error = Error;

    fn try_from([index, of]: [usize; 2]) -> Result<Self> {
        Self::new(index, of)
    }
}

impl From<Shard> for [usize; 2] {
    fn from(shard: Shard) -> Self {
        [shard.index, shard.of]
    }
}

/// What a part of some results says of itself, for whoever joins all parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Which part it is.
    pub shard: Shard,
    /// The signals that it holds, from and up to, in the order of the whole results.
    pub signals: [usize; 2],
    /// How many signals all parts hold.
    pub of_signals: usize,
    /// What tells models from others.
    pub models: Vec<String>,
    /// What tells the signals from others.
    pub data: String,
    /// What tells λ of all signals from others, where each has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lambda: Option<String>,
    /// Everything else that all parts must have in common, which stands beside it in a file.
    #[serde(skip)]
    pub settings: Value,
}

/// A value in at most some eighty characters.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Where two documents differ first, and what each has there.
fn difference<'a>(a: &'a Value, b: &'a Value, path: &str) -> Option<(String, &'a Value, &'a Value)> {
    match (a, b) {
        (a, b) if a == b => None,
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                difference(one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null), &path)
            })
        }
        _ => Some((path.to_owned(), a, b)),
    }
}

impl Part {
    /// Puts parts in order, `name` being where each comes from.
    ///
    /// # Errors
    /// A part that is missing or comes twice; parts of different numbers of parts, models, signals or settings.
    pub fn in_order<T>(mut parts: Vec<(Self, T)>, name: impl Fn(&T) -> String) -> Result<Vec<(Self, T)>> {
        parts.sort_by_key(|(part, _)| part.shard.index);
        let Some((first, at_first)) = parts.first() else { return Err(Error::missing("parts", "at least one")) };
        let (first, at_first) = (first.clone(), name(at_first));
        for (part, at) in &parts {
            let differ = |what: &str, expected: &dyn fmt::Display, found: &dyn fmt::Display| {
                let expected = format!("{expected}, as {at_first}");
                Err(Error::shape(format!("{what} of {}", name(at)), expected, found))
            };
            if part.shard.of != first.shard.of {
                return differ("number of parts", &first.shard.of, &part.shard.of);
            }
            if part.models != first.models {
                return differ("model", &first.models.join(", "), &part.models.join(", "));
            }
            if part.of_signals != first.of_signals {
                return differ("number of all signals", &first.of_signals, &part.of_signals);
            }
            if part.data != first.data {
                return differ("signals", &first.data, &part.data);
            }
            if part.lambda != first.lambda {
                let said = |lambda: &Option<String>| lambda.clone().unwrap_or_else(|| "none".into());
                return differ("λ of each signal", &said(&first.lambda), &said(&part.lambda));
            }
            if let Some((setting, expected, found)) = difference(&first.settings, &part.settings, "") {
                return differ(&format!("`{setting}`"), &short(expected), &short(found));
            }
        }
        if let Some([(part, one), (_, other)]) = parts.array_windows().find(|[(a, _), (b, _)]| a.shard == b.shard) {
            let expected = format!("every part once: {} and {} are the same", name(one), name(other));
            return Err(Error::parameter("part", part.shard, expected));
        }
        let missing: Vec<String> = (1..=first.shard.of)
            .filter(|index| parts.binary_search_by_key(index, |(part, _)| part.shard.index).is_err())
            .map(|index| index.to_string())
            .collect();
        if !missing.is_empty() {
            let listed = match missing.len() {
                0..=8 => missing.join(", "),
                more => format!("{} and {} more", missing[..8].join(", "), more - 8),
            };
            return Err(Error::missing(
                format!("part {listed} of {}", first.shard.of),
                format!("all parts 1, …, {}", first.shard.of),
            ));
        }
        let mut done = 0;
        for (part, at) in &parts {
            let [from, to] = part.signals;
            if from != done || to < from {
                return Err(Error::shape(format!("first signal of {}", name(at)), done, format!("{from} to {to}")));
            }
            done = to;
        }
        match done == first.of_signals {
            true => Ok(parts),
            false => Err(Error::shape("signals of all parts", first.of_signals, done)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!("2/3".parse::<Shard>().unwrap(), Shard::new(2, 3).unwrap());
        for wrong in ["0/3", "4/3", "1/0", "0/0", "1", "a/3", "1/2/3", "-1/3", "", "1/99999999999999999999"] {
            let message = wrong.parse::<Shard>().unwrap_err();
            assert!(message.starts_with("expected "), "{wrong}: {message}");
        }
        assert!("0/3".parse::<Shard>().unwrap_err().contains("1/3, …, 3/3"));
        let text = serde_json::to_string(&Shard::new(2, 3).unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Shard>(&text).unwrap(), Shard::new(2, 3).unwrap());
        assert!(serde_json::from_str::<Shard>("[0,3]").is_err());
    }

    #[test]
    fn parts_make_up_the_whole() {
        for (count, of) in [(10, 3), (3, 3), (2, 5), (0, 2), (usize::MAX, 7), (7, usize::MAX)] {
            let shards = (1..=of.min(9)).map(|index| Shard::new(index, of).unwrap());
            let ranges: Vec<Range<usize>> = shards.map(|shard| shard.range(count)).collect();
            assert_eq!(ranges[0].start, 0);
            assert!(ranges.array_windows().all(|[a, b]| a.end == b.start));
            assert!(ranges.iter().all(|range| range.len() == count / of || range.len() == count / of + 1));
            if of <= 9 {
                assert_eq!(ranges[of - 1].end, count);
            }
        }
    }

    #[test]
    fn parts_that_do_not_belong_together() {
        let part = |index, of| {
            let shard = Shard::new(index, of).unwrap();
            let range = shard.range(10);
            Part {
                shard,
                signals: [range.start, range.end],
                of_signals: 10,
                models: vec!["m".into()],
                data: "d".into(),
                lambda: None,
                settings: json!({ "pursuit": { "gap": 1, "name": "bp" } }),
            }
        };
        let join = |parts: Vec<Part>| {
            let parts = parts.into_iter().enumerate().map(|(place, part)| (part, place)).collect();
            Part::in_order(parts, |place| format!("file {place}")).map_err(|error| error.to_string())
        };
        let gap = Part { settings: json!({ "pursuit": { "gap": 2, "name": "bp" } }), ..part(2, 2) };
        let order: Vec<usize> =
            join(vec![part(3, 3), part(1, 3), part(2, 3)]).unwrap().iter().map(|part| part.1).collect();
        assert_eq!(order, [1, 2, 0]);
        for (parts, said) in [
            (vec![], "parts is missing"),
            (vec![part(1, 3), part(3, 3)], "part 2 of 3 is missing"),
            (vec![part(1, 2), part(2, 2), part(2, 2)], "file 1 and file 2 are the same"),
            (vec![part(1, 2), part(2, 3)], "number of parts of file 1: expected 2"),
            (vec![part(1, 2), Part { models: vec!["n".into()], ..part(2, 2) }], "model of file 1: expected m"),
            (vec![part(1, 2), Part { data: "e".into(), ..part(2, 2) }], "signals of file 1: expected d"),
            (
                vec![part(1, 2), Part { lambda: Some("x".into()), ..part(2, 2) }],
                "λ of each signal of file 1: expected none",
            ),
            (vec![part(1, 2), gap], "`pursuit.gap` of file 1: expected 1, as file 0, found 2"),
            (vec![part(1, 2), Part { signals: [6, 10], ..part(2, 2) }], "first signal of file 1: expected 5"),
            (vec![part(1, 2), Part { signals: [5, 9], ..part(2, 2) }], "signals of all parts: expected 10"),
        ] {
            let message = join(parts).unwrap_err();
            assert!(message.contains(said), "{message}");
        }
    }
}
