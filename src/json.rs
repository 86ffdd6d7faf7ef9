//! JSON that is read so that a mistake is told with the key that it is at: configurations, which people write, and what files say of themselves.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};
use std::borrow::Cow;

/// What serde calls a value of a type, and what people do.
const NAMES: [(&str, &str); 15] = [
    ("usize", "a whole number from 0 on"),
    ("u64", "a whole number from 0 on"),
    ("u32", "a whole number from 0 on"),
    ("a nonzero usize", "a whole number from 1 on"),
    ("a nonzero u64", "a whole number from 1 on"),
    ("i64", "a whole number"),
    ("f32", "a number"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("path string", "a path in quotes"),
    ("string or map", "a name in quotes or an object in braces"),
    ("a sequence", "a list in brackets"),
    ("a map", "an object in braces"),
    ("unit", "null"),
];

/// Reads a document; a mark of its encoding at its beginning, as some editors write it, is passed over.
///
/// # Errors
/// What is wrong, with the key and the place: `learning.epochs: expected a whole number from 0 on, found 2.5 (line 3, column 17)`.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    let text = without_mark(text);
    let mut document = Deserializer::from_slice(&text);
    let parsed = serde_path_to_error::deserialize(&mut document).map_err(told)?;
    document.end().map_err(|error| reworded(&error.to_string()))?;
    Ok(parsed)
}

/// Reads a configuration, of whose objects every value has its key.
///
/// # Errors
/// As [`parse`].
pub fn parse_config<T: DeserializeOwned + JsonSchema>(text: &[u8]) -> Result<T, String> {
    check_objects::<T>(&parse(text)?)?;
    // Once more from the text, which knows the place of a mistake.
    parse(text)
}

/// [`parse_config`] of what is a document already.
///
/// # Errors
/// As [`parse_value`].
pub fn parse_config_value<T: DeserializeOwned + JsonSchema>(config: Value) -> Result<T, String> {
    check_objects::<T>(&config)?;
    parse_value(config)
}

fn check_objects<T: JsonSchema>(config: &Value) -> Result<(), String> {
    let schema = schemars::schema_for!(T).to_value();
    refuse_lists(&schema, &schema, config, "")
}

/// Reads what is a document already.
///
/// # Errors
/// As [`parse`], without the place.
pub fn parse_value<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(told)
}

/// A text in UTF-8 and without the byte order mark that some editors put at its beginning. Where the mark is that of UTF-16, in which
/// PowerShell writes what a program prints, the text is turned into UTF-8.
fn without_mark(text: &[u8]) -> Cow<'_, [u8]> {
    let units = |from: fn([u8; 2]) -> u16| text[2..].as_chunks().0.iter().map(move |unit| from(*unit)).collect();
    let units: Vec<u16> = match text {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] => units(u16::from_be_bytes),
        _ => return text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).into(),
    };
    String::from_utf16_lossy(&units).into_bytes().into()
}

/// What a node refers to, or is if it is not null.
pub(crate) fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(path) = node["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        return root.pointer(path).unwrap_or(node);
    }
    let alternatives = node["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    match alternatives {
        [object, null] | [null, object] if null["type"] == "null" => resolved(root, object),
        _ => node,
    }
}

/// Refuses lists where a schema has objects: their values would be taken for those of the keys, one after the other.
fn refuse_lists(root: &Value, node: &Value, value: &Value, path: &str) -> Result<(), String> {
    let mut node = resolved(root, node);
    let is_object = |node: &Value| node["properties"].is_object();
    let variants = node["oneOf"].as_array();
    let is_choice = variants.is_some_and(|variants| variants.iter().all(is_object));
    // Of a choice among objects the one that the value's own keys name.
    let is_named = |variant: &&Value| {
        let fields = variant["properties"].as_object().into_iter().flatten();
        fields.clone().any(|(name, field)| field["const"].is_string() && field["const"] == value[name.as_str()])
    };
    if let Some(variant) = variants.and_then(|variants| variants.iter().find(is_named)) {
        node = variant;
    }
    match value {
        Value::Array(_) if is_object(node) || is_choice => {
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            Err(format!("{place}expected an object in braces, found a list"))
        }
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(index, element)| refuse_lists(root, &node["items"], element, &format!("{path}[{index}]"))),
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            refuse_lists(root, &node["properties"][name.as_str()], field, &path)
        }),
        _ => Ok(()),
    }
}

fn told(error: serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let reason = reworded(&error.into_inner().to_string());
    // The whole document's path is a dot; that of a key that could not be read yet ends with a question mark.
    match path.as_str() {
        "." | "?" => reason,
        path => format!("{}: {reason}", path.trim_end_matches(".?")),
    }
}

/// A message of serde's in this program's words.
fn reworded(message: &str) -> String {
    let (message, place) = match message.rsplit_once(" at line ") {
        Some((message, place)) => (message, format!(" (line {})", place.replace(" column", ", column"))),
        None => (message, String::new()),
    };
    let wrong = ["invalid type: ", "invalid value: ", "invalid length "];
    let found = wrong.iter().find_map(|start| message.strip_prefix(start)?.rsplit_once(", expected "));
    let text = match found {
        Some((found, expected)) => {
            let expected = match NAMES.iter().find(|(name, _)| *name == expected) {
                Some((_, name)) => (*name).to_owned(),
                None if expected.starts_with("struct ") || expected.starts_with("internally tagged enum") => {
                    "an object in braces".to_owned()
                }
                None => expected.replace('`', ""),
            };
            let found = match found {
                "map" => "an object".to_owned(),
                "sequence" => "a list".to_owned(),
                // The user's own text stays as it is.
                text if text.starts_with("string ") => text["string ".len()..].to_owned(),
                other => {
                    let kinds = ["integer ", "floating point ", "boolean "];
                    kinds.iter().find_map(|kind| other.strip_prefix(kind)).unwrap_or(other).replace('`', "")
                }
            };
            format!("expected {expected}, found {found}")
        }
        None if message.starts_with("EOF") => "it ends too early".to_owned(),
        None if message == "trailing characters" => "there is more after its end".to_owned(),
        // What stands in backquotes elsewhere is a setting of the library that a flag may have another name for.
        None => match message.strip_prefix("unknown variant ") {
            Some(rest) => format!("unknown choice {rest}"),
            None => message.replace("unknown field", "unknown key").replace("missing field", "missing key"),
        }
        .replace('`', ""),
    };
    format!("{text}{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        count: usize,
        #[serde(default)]
        share: f32,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        list: Vec<Inner>,
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        for (text, expected) in [
            (
                r#"{"list": [{"count": 1}, {"count": 2.5}]}"#,
                "list[1].count: expected a whole number from 0 on, found 2.5 (line 1, column 37)",
            ),
            (
                r#"{"list": [{"count": 1, "share": "half"}]}"#,
                "list[0].share: expected a number, found \"half\" (line 1, column 38)",
            ),
            (r#"{"list": [{"share": 1}]}"#, "list[0]: missing key count (line 1, column 22)"),
            (r#"{"list": {"count": 1}}"#, "list: expected a list in brackets, found an object (line 1, column 9)"),
            (r#"{"list": [], "lost": 1}"#, "lost: unknown key lost, expected list (line 1, column 19)"),
            (r#"{"list": []} {}"#, "there is more after its end (line 1, column 14)"),
            ("", "it ends too early (line 1, column 0)"),
            (
                r#"{"list": [{"count": "`x`"}]}"#,
                "list[0].count: expected a whole number from 0 on, found \"`x`\" (line 1, column 25)",
            ),
        ] {
            assert_eq!(parse::<Outer>(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
        assert!(parse::<Outer>(b"\xef\xbb\xbf{\"list\": []}").is_ok());
        let value = serde_json::json!({"list": [{"count": null}]});
        let message = parse_value::<Outer>(value).unwrap_err();
        assert_eq!(message, "list[0].count: expected a whole number from 0 on, found null");
    }
}
