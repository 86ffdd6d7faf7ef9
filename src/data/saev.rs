//! Activations as saev writes them: a folder with `metadata.json`, `shards.json` and shards `acts000000.bin`, `acts000001.bin`, … of
//! `float32` without headers, `[examples, layers, tokens, values]`.
//!
//! The format is that of `docs/src/developers/protocol.md` in OSU-NLP-Group/saev, protocols 1.0.0 to 2.1, and of what was written before
//! there was a protocol, under other names of the keys and without `shards.json`. A shard's file may be longer than its examples: the
//! last one is written at full length.

use super::arrays::Shard;
use super::folder::{Listing, Skipped, name_of};
use super::stored::{Element, Kind, Strided};
use crate::error::{Error, Result};
use crate::files;
use crate::json;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Metadata {
    layers: Vec<i64>,
    /// Without [CLS].
    #[serde(alias = "patches_per_ex", alias = "n_patches_per_img")]
    content_tokens_per_example: usize,
    /// Whether the first token of an example is [CLS].
    cls_token: bool,
    #[serde(alias = "d_vit")]
    d_model: usize,
    #[serde(alias = "n_ex", alias = "n_imgs")]
    n_examples: usize,
    dtype: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(alias = "n_ex", alias = "n_imgs")]
    n_examples: usize,
}

/// Whether a folder is one of saev's.
pub(super) fn is_folder(folder: &Path) -> bool {
    let file = |name: &str| folder.join(name).is_file();
    file("metadata.json") && (file("shards.json") || file("acts000000.bin"))
}

/// The shards of a folder with the tokens of one layer, [CLS] aside, and what is passed over.
///
/// # Errors
/// [`Error::Missing`] and [`Error::Parameter`] where `layer` does not tell which layer; [`Error::Io`]; [`Error::Format`] for files that
/// do not say what they should or are too short.
pub(super) fn find(folder: &Path, layer: Option<i64>) -> Result<(Vec<Shard>, Skipped)> {
    let path = folder.join("metadata.json");
    let metadata: Metadata = parse(&path, "saev's metadata")?;
    if let Some(dtype) = metadata.dtype.as_ref().filter(|dtype| *dtype != "float32") {
        return Err(Error::format(&path, format!("expected `dtype` float32, found {dtype:?}")));
    }
    let (tokens, values) = (metadata.content_tokens_per_example, metadata.d_model);
    for (field, number) in [
        ("content_tokens_per_example", tokens),
        ("d_model", values),
        ("n_examples", metadata.n_examples),
        ("layers", metadata.layers.len()),
    ] {
        if number == 0 {
            return Err(Error::format(&path, format!("expected `{field}` of at least 1, found none")));
        }
    }
    let layer = layer_of(folder, &metadata.layers, layer)?;
    let first = usize::from(metadata.cls_token);
    // Multiplied as 128-bit numbers: whatever the file says, nothing overflows that is then compared with the files' lengths.
    let of_token = values as u128 * 4;
    let of_layer = (tokens as u128 + first as u128).saturating_mul(of_token);
    let of_example = of_layer.saturating_mul(metadata.layers.len() as u128);
    let mut shards = Vec::new();
    let mut total = 0u128;
    for (path, examples) in files_of(folder, &metadata, of_example)? {
        let len = std::fs::metadata(&path).map_err(Error::read(&path))?.len();
        let expected = of_example.saturating_mul(examples as u128);
        if expected > u128::from(len) {
            let expected = format!("expected {expected} bytes for {examples} examples, as metadata.json says");
            return Err(Error::format(&path, format!("{expected}, found {len}")));
        }
        total += examples as u128;
        if examples == 0 {
            continue;
        }
        // All of these are less than the length of the file.
        let array = Strided {
            offset: layer * of_layer as usize + first * of_token as usize,
            element: Element::little(Kind::Float, 4),
            extents: vec![examples, tokens, values],
            steps: vec![of_example as usize, of_token as usize, 4],
        };
        shards.push(Shard { path, array, len: len as usize });
    }
    if total != metadata.n_examples as u128 {
        let expected = format!("expected shards with {} examples, as metadata.json says", metadata.n_examples);
        return Err(Error::format(folder, format!("{expected}, found {total}")));
    }
    let mut skipped = Skipped::default();
    if metadata.cls_token {
        skipped.rests.push("the [CLS] token of every example".into());
    }
    if folder.join("labels.bin").is_file() {
        skipped.rests.push("labels.bin".into());
    }
    Ok((shards, skipped))
}

fn layer_of(folder: &Path, layers: &[i64], wanted: Option<i64>) -> Result<usize> {
    let list = || layers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
    match wanted {
        None if layers.len() == 1 => Ok(0),
        None => Err(Error::missing("layer", format!("one of the layers of {}: {}", folder.display(), list()))),
        Some(wanted) => layers.iter().position(|&layer| layer == wanted).ok_or_else(|| {
            Error::parameter("layer", wanted, format!("one of the layers of {}: {}", folder.display(), list()))
        }),
    }
}

/// The files of activations with their numbers of examples.
fn files_of(folder: &Path, metadata: &Metadata, of_example: u128) -> Result<Vec<(PathBuf, usize)>> {
    let path = folder.join("shards.json");
    if path.is_file() {
        let entries: Vec<Entry> = parse(&path, "saev's list of shards")?;
        let plain = |name: &str| Path::new(name).file_name().is_some_and(|last| last == name);
        if let Some(entry) = entries.iter().find(|entry| !plain(&entry.name)) {
            return Err(Error::format(&path, format!("expected names of files, found {:?}", entry.name)));
        }
        return Ok(entries.into_iter().map(|entry| (folder.join(entry.name), entry.n_examples)).collect());
    }
    // Before there was such a list every shard was full but the last one.
    let mut rest = metadata.n_examples;
    let shards = Listing::of_shards(folder)?;
    let mut files = Vec::with_capacity(shards.len());
    for path in shards {
        let len = std::fs::metadata(&path).map_err(Error::read(&path))?.len();
        let examples = usize::try_from(u128::from(len) / of_example).unwrap_or(usize::MAX).min(rest);
        rest -= examples;
        files.push((path, examples));
    }
    Ok(files)
}

impl Listing {
    /// The files `acts….bin` of a folder in natural order.
    fn of_shards(folder: &Path) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let path = entry.map_err(Error::read(folder))?.path();
            let name = name_of(&path);
            if name.starts_with("acts") && name.ends_with(".bin") && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort_by(|a, b| super::folder::natural(&name_of(a), &name_of(b)));
        Ok(paths)
    }
}

fn parse<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    json::parse(&files::read_whole(path)?).map_err(|error| Error::format(path, format!("expected {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataConfig, Dataset, open};
    use crate::geometry::SignalShape;

    fn config(folder: &Path, layer: Option<i64>) -> DataConfig {
        DataConfig { source: folder.to_str().unwrap().into(), layer, ..DataConfig::default() }
    }

    fn values(data: &Dataset) -> Vec<f32> {
        let mut out = vec![0.0; data.all.len() * data.all.shape().len()];
        data.all.read(&(0..data.all.len()).collect::<Vec<_>>(), &mut out).unwrap();
        out
    }

    /// 5 examples, layers 3 and −1, [CLS] and 2 tokens of 4 values, in shards of 2: value = 1000·example + 100·layer + 10·token + value.
    fn write(folder: &Path, metadata: &str, shards: Option<&str>) {
        for shard in 0..3 {
            let of_example =
                |example: usize| (0..24).map(move |at| 1000 * example + 100 * (at / 12) + 10 * (at / 4 % 3) + at % 4);
            let numbers = (2 * shard..2 * shard + 2).flat_map(of_example).map(|value| value as f32);
            // What is behind the last example is left at zero.
            let numbers = numbers.map(|value| if value < 5000.0 { value } else { 0.0 });
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            std::fs::write(folder.join(format!("acts{shard:06}.bin")), bytes).unwrap();
        }
        std::fs::write(folder.join("metadata.json"), metadata).unwrap();
        if let Some(shards) = shards {
            std::fs::write(folder.join("shards.json"), shards).unwrap();
        }
    }

    const NEW: &str = r#"{"family": "clip", "ckpt": "x", "layers": [3, -1], "content_tokens_per_example": 2, "cls_token": true,
        "d_model": 4, "n_examples": 5, "max_tokens_per_shard": 12, "data": "eA==", "dataset": "/x", "dtype": "float32",
        "protocol": "2.1"}"#;
    const OLD: &str = r#"{"vit_family": "clip", "vit_ckpt": "x", "layers": [3, -1], "n_patches_per_img": 2, "cls_token": true,
        "d_vit": 4, "seed": 1, "n_imgs": 5, "n_patches_per_shard": 12, "data": "x"}"#;
    const SHARDS: &str = r#"[{"name": "acts000000.bin", "n_examples": 2}, {"name": "acts000001.bin", "n_examples": 2},
        {"name": "acts000002.bin", "n_examples": 1}]"#;

    #[test]
    fn tokens_of_a_layer_by_either_protocol() {
        for (metadata, shards) in [(NEW, Some(SHARDS)), (OLD, None)] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), metadata, shards);
            for (layer, number) in [(3, 0), (-1, 1)] {
                let data = open(&config(folder.path(), Some(layer))).unwrap();
                assert_eq!((data.all.len(), data.all.shape()), (10, SignalShape::new(4, 1, 1)));
                let expected = (0..40).map(|at| 1000 * (at / 8) + 100 * number + 10 * (1 + at / 4 % 2) + at % 4);
                assert_eq!(values(&data), expected.map(|value| value as f32).collect::<Vec<_>>());
                assert!(data.all.skipped().unwrap().contains("the [CLS] token of every example"));
            }
            let message = open(&config(folder.path(), None)).err().unwrap().to_string();
            assert!(message.starts_with("layer is missing: expected one of the layers of"), "{message}");
            assert!(message.ends_with("3, -1"), "{message}");
            let message = open(&config(folder.path(), Some(7))).err().unwrap().to_string();
            assert!(message.starts_with("layer = 7:") && message.ends_with("3, -1"), "{message}");
        }
    }

    #[test]
    fn what_does_not_agree_is_refused_in_one_line() {
        let cases = [
            (NEW.replace("float32", "bfloat16"), SHARDS.into(), "`dtype` float32"),
            (NEW.replace("\"d_model\": 4", "\"d_model\": 0"), SHARDS.into(), "`d_model` of at least 1"),
            (NEW.replace("\"d_model\": 4", "\"d_model\": 5"), SHARDS.into(), "expected 240 bytes for 2 examples"),
            (
                NEW.replace("\"d_model\": 4", &format!("\"d_model\": {}", u64::MAX)),
                SHARDS.into(),
                "bytes for 2 examples",
            ),
            (NEW.replace("[3, -1]", "[]"), SHARDS.into(), "`layers` of at least 1"),
            (NEW.replace("\"cls_token\": true,", ""), SHARDS.into(), "missing key cls_token"),
            ("[".repeat(10_000), SHARDS.into(), "metadata.json: expected saev's metadata"),
            (NEW.into(), SHARDS.replace("acts000002", "../acts000002"), "found \"../acts000002.bin\""),
            (NEW.into(), SHARDS.replace("acts000002", "acts000003"), "acts000003.bin"),
            (
                NEW.into(),
                SHARDS.replace("\"n_examples\": 1", "\"n_examples\": 2"),
                "5 examples, as metadata.json says, found 6",
            ),
            (NEW.into(), SHARDS.replace("\"n_examples\": 1", "\"n_examples\": 3"), "288 bytes for 3 examples"),
        ];
        for (metadata, shards, part) in cases {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &metadata, Some(&shards));
            let message = open(&config(folder.path(), Some(3))).err().unwrap().to_string();
            assert!(message.contains(part) && !message.contains('\n'), "{part}: {message}");
        }
    }
}
