//! What a configuration of `mlcsc train` may hold: printed whole, as a schema, and as a part of `--help`.

use super::output;
use crate::error::{Error, Result};
use crate::json::resolved;
use crate::learn::config::TrainConfig;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// Width of the lines of [`help`].
const WIDTH: usize = 96;

/// Prints a configuration with every key, those that were not said too.
///
/// # Errors
/// As [`output::print`].
pub fn print(config: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(config);
    output::print(&text.map_err(|error| Error::format(Path::new("configuration"), error.to_string()))?)
}

/// The JSON schema of a configuration, made of the documentation of its fields.
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    shorten(&mut schema);
    schema
}

/// Writes numbers that come from single precision as they are meant: 0.1, not 0.10000000149011612.
fn shorten(node: &mut Value) {
    match node {
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Array(elements) => elements.iter_mut().for_each(shorten),
        Value::Number(number) => {
            let single = number.as_f64().filter(|_| number.is_f64()).map(|value| (value, value as f32));
            if let Some((_, single)) = single.filter(|&(value, single)| f64::from(single) == value) {
                *node = single.to_string().parse().map_or(Value::Null, |value: f64| value.into());
            }
        }
        _ => (),
    }
}

/// Every key of both kinds of configuration with what it means, for `--help`.
pub fn help() -> String {
    let mut text =
        String::from("Configuration (--config FILE), a JSON document; --print-config writes a complete one:\n");
    describe(&schema_of::<TrainConfig>(), &mut text);
    #[cfg(feature = "train")]
    {
        text.push_str(
            "\nConfiguration of a rival; keys of \"rival\" that depend on its model follow the model's name:\n",
        );
        describe(&schema_of::<crate::learn::rivals::RivalTrainConfig>(), &mut text);
    }
    text
}

/// Appends every key of a schema.
fn describe(schema: &Value, text: &mut String) {
    for Key { path, meaning } in keys(schema) {
        text.push_str(&format!("  {path}\n{}", wrapped(&meaning)));
    }
}

/// A key of a configuration.
#[derive(Debug)]
struct Key {
    /// Names from the outermost object inwards; `[]` stands for the elements of a list, `(x)` for a choice among several objects.
    path: String,
    meaning: String,
}

/// Every key of a schema, those of objects within objects too.
fn keys(schema: &Value) -> Vec<Key> {
    let mut found = Vec::new();
    collect(schema, schema, "", &mut found);
    found
}

fn collect(root: &Value, node: &Value, prefix: &str, found: &mut Vec<Key>) {
    let node = resolved(root, node);
    for variant in node["oneOf"].as_array().into_iter().flatten() {
        // A choice among objects is told by a field with one possible value.
        let tag = properties(variant).find_map(|(_, field)| field["const"].as_str());
        if let Some(tag) = tag {
            collect(root, variant, &format!("{prefix}({tag})"), found);
        }
    }
    for (name, field) in properties(node).filter(|(_, field)| field["const"].is_null()) {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let target = resolved(root, field);
        if let Some(tag) = tag_of(target) {
            let listed = choices(root, target).join(", ");
            let meaning = format!("Which one; keys of each follow its name. One of {listed}. Needed, no default.");
            found.push(Key { path: format!("{path}.{tag}"), meaning });
        }
        let meaning = field["description"].as_str().or(target["description"].as_str()).unwrap_or_default();
        let choices = if tag_of(target).is_some() { Vec::new() } else { choices(root, target) };
        let choices = if choices.is_empty() { String::new() } else { format!(" One of {}.", choices.join(", ")) };
        found.push(Key { path: path.clone(), meaning: format!("{}{choices}", meaning.replace('\n', " ")) });
        collect(root, target, &path, found);
        if target["items"].is_object() {
            collect(root, &target["items"], &format!("{path}[]"), found);
        }
    }
}

/// The key that tells which of several objects one is, where a node is such a choice.
fn tag_of(node: &Value) -> Option<&str> {
    let variants = node["oneOf"].as_array()?;
    let tag = |variant: &Value| properties(variant).find(|(_, field)| field["const"].is_string()).is_some();
    let (name, _) = properties(variants.first()?).find(|(_, field)| field["const"].is_string())?;
    variants.iter().all(tag).then_some(name)
}

fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node["properties"].as_object().into_iter().flatten()
}

/// The texts that a value may be, if it is one of a few.
fn choices(root: &Value, node: &Value) -> Vec<String> {
    let listed = node["enum"].as_array().into_iter().flatten();
    let told = node["oneOf"].as_array().into_iter().flatten();
    let told = told.flat_map(|variant| {
        let tags = properties(variant).map(|(_, field)| &field["const"]).filter(|tag| tag.is_string());
        let nested = variant["enum"].as_array().into_iter().flatten();
        std::iter::once(&resolved(root, variant)["const"]).chain(nested).chain(tags)
    });
    listed.chain(told).filter_map(|value| value.as_str().map(str::to_owned)).collect()
}

/// A text in indented lines.
fn wrapped(text: &str) -> String {
    const INDENT: &str = "      ";
    let mut lines = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && INDENT.len() + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push_str(&format!("{INDENT}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        lines.push_str(&format!("{INDENT}{line}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::preset::Preset;
    use std::collections::BTreeSet;

    /// Paths of all objects' fields, the elements of lists taken together.
    fn paths(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
        for (name, field) in value.as_object().into_iter().flatten() {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            found.insert(path.clone());
            paths(field, &path, found);
        }
        for element in value.as_array().into_iter().flatten() {
            paths(element, &format!("{prefix}[]"), found);
        }
    }

    fn documented(schema: &Value) -> BTreeSet<String> {
        for Key { path, meaning } in keys(schema) {
            assert!(!meaning.is_empty() && !meaning.contains("[`"), "{path}: {meaning}");
        }
        keys(schema).into_iter().map(|key| key.path).collect()
    }

    #[test]
    fn every_key_is_documented() {
        let schema = schema_of::<TrainConfig>();
        let mut printed = BTreeSet::new();
        paths(&serde_json::to_value(TrainConfig::preset(Preset::Small)).unwrap(), "", &mut printed);
        // A schedule is a number or three.
        let start = printed.range("learning.gradient.step.".to_owned()..).next().unwrap().clone();
        assert_eq!(start, "learning.gradient.step.end");
        printed.retain(|path| !path.starts_with("learning.gradient.step."));
        // Found from signals: there are none.
        let found = ["model.sampling_rate", "model.statistics", "model.statistics.mean", "model.statistics.scale"];
        printed.extend(found.map(String::from));
        assert_eq!(printed, documented(&schema));
        for key in keys(&schema) {
            let leaf = !keys(&schema).iter().any(|other| other.path.starts_with(&format!("{}.", key.path)));
            let required = key.path.starts_with("model.");
            assert!(!leaf || required || key.meaning.contains("efault"), "{}: {}", key.path, key.meaning);
        }
        assert_eq!(schema["$defs"]["DataConfig"]["properties"]["held_out"]["default"].to_string(), "0.1");
        assert!(help().contains("  learning.pursuit.forgetting\n      Exponent κ in (0, 1]"));
    }

    #[cfg(feature = "train")]
    #[test]
    fn every_key_of_a_rival_is_documented() {
        use crate::baselines::RivalConfig;
        use crate::learn::rivals::RivalTrainConfig;
        let documented = documented(&schema_of::<RivalTrainConfig>());
        for name in RivalConfig::NAMES {
            let config = RivalTrainConfig::new(RivalConfig::named(name).unwrap());
            let value = serde_json::to_value(&config).unwrap();
            let model = value["rival"]["model"].as_str().unwrap().to_owned();
            let mut printed = BTreeSet::new();
            paths(&value, "", &mut printed);
            for path in printed {
                let path = match path.as_str() {
                    "rival.model" => path,
                    path => path.replace("rival.", &format!("rival({model}).")),
                };
                assert!(documented.contains(&path), "{path} in {documented:?}");
            }
        }
    }

    #[test]
    fn lines_are_short() {
        let text = wrapped(&"word ".repeat(60));
        assert!(
            text.lines().count() > 2 && text.lines().all(|line| line.len() <= WIDTH && line.starts_with("      w"))
        );
        assert_eq!(wrapped(""), "");
    }
}
