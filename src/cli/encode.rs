//! `mlcsc encode`: signals to codes.

use super::coding::{Batch, Coder, Coders, CodingArgs};
use super::data::{InputArgs, ShardArgs, Signals};
use super::foreign::{self, EncodedBatch, Encoder};
use super::inputs::Inputs;
use super::output::Summary;
use super::{coding, flags, output};
use crate::autoencoder::Autoencoder;
use crate::data::Part;
use crate::error::Result;
use crate::export::CodesWriter;
use crate::export::codes::{CHANNEL_AXIS, CodesFormat, FILTERS, LAYOUT, PART, digest_of_filters};
use crate::files;
use crate::foreign::ForeignAutoencoder;
use crate::geometry::SignalShape;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Code signals with a model and write γ_1 … γ_L
///
/// They are the pursuit's own: γ_{i−1} = D_i γ_i holds exactly but for layered-thresholding and layered-bp, which code layer by
/// layer. --noise and λ are in units of the signals after the model's normalisation; what undoes that is written beside the codes, so
/// that signals come back: x = scale·(channel_scale·D^(L)γ_L + channel_mean) + mean + smooth, where scales that a file does not hold are 1 and other parts 0. Pictures of several sizes are coded each in its own; in the file every one
/// then has arrays of its own, as boat.png/gamma_1. Codes of an imported auto-encoder are in its own units, whoever computes them; pursuits
/// run on its decoder's rows with unit norm, after its bias was taken off.
#[derive(Debug, Args)]
pub(super) struct EncodeArgs {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    shard: ShardArgs,
    /// File for the codes; .npz is compressed
    #[arg(long, value_name = "F.safetensors|F.npz")]
    out: PathBuf,
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    coding: CodingArgs,
}

impl EncodeArgs {
    pub(super) fn run(&self) -> Result<()> {
        self.coding.check()?;
        self.input.check()?;
        CodesFormat::of(&self.out, "--out")?;
        files::check_writable(&self.out)?;
        Inputs::of_model(&self.input.model)
            .and("--lambda-file", self.coding.lambda.lambda_file.as_deref())
            .and_data(self.input.data.source.as_deref())
            .refuse("--out", &self.out)?;
        let imported = foreign::open(&self.input.model, &self.input.device.open()?)?;
        let coding = if imported.is_some() { self.coding.of_imported() } else { self.coding.clone() };
        coding.check()?;
        let imported = match imported {
            Some(network) if coding.pursuit.is_encoder() => return self.by_encoder(&Encoder::new(network, &coding)),
            other => other,
        };
        let (model, defaults) = match &imported {
            Some(network) => (network.dictionary().map_err(flags::named::<CodingArgs>)?, network.coding()),
            None => self.input.load()?,
        };
        // Codes over atoms of unit norm, in the units of the auto-encoder that they belong to.
        let synthesis = imported.as_ref().map(ForeignAutoencoder::as_synthesised).transpose()?;
        let norms = imported.map(|network| network.norms_of_codes());
        let groups = self.input.groups_for(&model)?;
        let settings = coding.settings(defaults, groups.iter().map(Signals::len).sum())?;
        let coders = Coders::new(model, groups, settings, &self.shard)?;
        let part = self.shard.shard.map(|shard| coders.part(shard, &self.input.model)).transpose()?;

        let mut writer = CodesWriter::create(&self.out, shapes(coders.first()).len())?;
        let groups = coders.groups();
        let folder = common_folder(groups);
        if let [all] = groups {
            writer.begin("", all.shape(), &shapes(coders.first()), coders.count())?;
        }
        let coded = coders.run(|group, coder, batch| {
            let representations = batch.pursued.representations(coder.operator()).into_iter();
            let representations: Vec<_> = match &norms {
                Some(norms) => representations.map(|codes| codes / norms.clone()).collect(),
                None => representations.collect(),
            };
            let Batch { start, pursued, undo, .. } = batch;
            if groups.len() == 1 {
                return writer.append(&representations, &pursued.reports, &undo);
            }
            for (index, report) in pursued.reports.iter().enumerate() {
                let one: Vec<_> = representations.iter().map(|codes| codes.clone().narrow(0, index, 1)).collect();
                let signals = &groups[group];
                writer.begin(&name(signals, start + index, folder), signals.shape(), &shapes(coder), 1)?;
                writer.append(&one, std::slice::from_ref(report), &undo.of_signal(index))?;
            }
            Ok(())
        })?;
        let source = groups[0].source();
        let pictures = pictures(groups, folder);
        let mut settings = coders.first().describe(&source);
        settings["pictures"] = pictures.clone();
        settings[LAYOUT] = json!(self.input.data.layout);
        settings[CHANNEL_AXIS] = groups[0].has_channel_axis().into();
        if let Some(synthesis) = &synthesis {
            settings[FILTERS] = digest_of_filters(synthesis).into();
        }
        if let Some(part) = &part {
            settings[PART] = json!(part);
        }
        writer.finish(&settings)?;

        if self.json {
            let mut document = coders.json(&coded, &self.input.device.name());
            document["model"] = output::shown(&self.input.model).into();
            document["out"] = self.out.display().to_string().into();
            document["pictures"] = pictures;
            if let Some(part) = part {
                document[PART] = json!(part);
            }
            return output::print_json(&document);
        }
        let mut summary = coders.summary(&coded, &self.input.device.name());
        tell_part(&mut summary, part);
        let shapes = shapes(coders.first());
        let names = shapes.iter().enumerate().map(|(index, shape)| match groups.len() {
            1 => format!("γ_{} {shape}", index + 1),
            _ => format!("NAME/gamma_{}", index + 1),
        });
        let names = names.collect::<Vec<_>>().join(", ");
        summary.row("codes", if groups.len() == 1 { names } else { format!("{names} for every picture NAME") });
        summary.row("written", self.out.display());
        let end = coders.first().not_converged(&coded);
        output::print(&[Some(summary.text()), end].into_iter().flatten().collect::<Vec<_>>().join("\n"))
    }
}

impl EncodeArgs {
    /// Whether it is told to do a part.
    pub(super) fn shares_work(&self) -> bool {
        self.shard.shard.is_some()
    }

    /// Codes of an imported auto-encoder's own.
    fn by_encoder(&self, encoder: &Encoder) -> Result<()> {
        let signals = self.input.signals()?;
        let code = encoder.network().code();
        let mut writer = CodesWriter::create(&self.out, 1)?;
        let range = encoder.range(&signals, &self.shard)?;
        let part = |shard| coding::part(shard, &self.input.model, std::slice::from_ref(&signals), range.clone());
        let part = self.shard.shard.map(part).transpose()?;
        writer.begin("", signals.shape(), &[code], range.len())?;
        let append = |batch: EncodedBatch| writer.append(&[batch.coded.codes], &batch.reports, &batch.undo);
        let encoded = encoder.run_on(&signals, range, append)?;
        let mut settings = encoder.describe(&signals.source());
        settings[LAYOUT] = json!(self.input.data.layout);
        settings[CHANNEL_AXIS] = signals.has_channel_axis().into();
        settings[FILTERS] = digest_of_filters(&encoder.network().as_synthesised()?).into();
        if let Some(part) = &part {
            settings[PART] = json!(part);
        }
        writer.finish(&settings)?;
        let device = self.input.device.name();
        if self.json {
            let mut document = encoder.json(&encoded, &signals, &device);
            document["model"] = output::shown(&self.input.model).into();
            document["out"] = self.out.display().to_string().into();
            if let Some(part) = part {
                document[PART] = json!(part);
            }
            return output::print_json(&document);
        }
        let mut summary = encoder.summary(&encoded, &signals, &device);
        tell_part(&mut summary, part);
        summary.row("codes", format!("γ_1 {code}")).row("written", self.out.display());
        output::print(&summary.text())
    }
}

/// Says which signals a part holds.
fn tell_part(summary: &mut Summary, part: Option<Part>) {
    if let Some(Part { shard, signals: [from, to], of_signals, .. }) = part {
        summary.row("part", format!("{shard}: signals {from} to {} of {of_signals}, from 0 on", to - 1));
    }
}

/// Shapes of γ_1 … γ_L.
fn shapes(coder: &Coder) -> Vec<SignalShape> {
    coder.operator().geometry().layers().iter().map(|layer| layer.code).collect()
}

/// The folder that all files of signals lie in, be it in its subfolders.
fn common_folder(groups: &[Signals]) -> &Path {
    let has_files = |signals: &&Signals| signals.file(0).is_some();
    let files =
        groups.iter().filter(has_files).flat_map(|group| (0..group.len()).filter_map(|index| group.file(index)));
    files::common_folder(files)
}

/// What a picture's arrays are called: by its file's name, from that folder on.
fn name(signals: &Signals, index: usize, folder: &Path) -> String {
    let name = signals.file(index).map(|file| files::name_in(file, folder));
    name.unwrap_or_else(|| signals.places().get(index).to_string())
}

/// The files' names in the order of the signals, `null` where signals are no pictures of their own.
fn pictures(groups: &[Signals], folder: &Path) -> Value {
    // Of millions of signals no list is made that holds nothing.
    if groups.iter().any(|signals| signals.file(0).is_none()) {
        return Value::Null;
    }
    let mut names: Vec<(usize, Option<String>)> = groups
        .iter()
        .flat_map(|signals| {
            signals
                .places()
                .iter()
                .enumerate()
                .map(|(index, place)| (place, signals.file(index).map(|_| name(signals, index, folder))))
        })
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect::<Option<Vec<String>>>().map_or(Value::Null, Value::from)
}
