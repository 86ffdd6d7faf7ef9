//! SAELens: what `SAE.save_model` writes, version 6, and the older forms that it still reads.
//!
//! Formulas and defaults follow `sae_lens/saes/*.py` of 6.54. What it leaves to whoever loads a file is folded into the weights here, as it
//! does itself where it saves for inference: decoder norms that rank units (`rescale_acts_by_decoder_norm`) and the factor of
//! `expected_average_only_in`, which a checkpoint keeps in `activation_scaler.json`.

use super::settings::Settings;
use super::weights::{Arrays, Precision};
use super::{Activation, ForeignConfig, Format, InputScaling, Weights};
use crate::error::Result;
use serde_json::Value;
use std::path::Path;

/// Name of the file of tensors.
pub(crate) const WEIGHTS: &str = "sae_weights.safetensors";

/// Name of the file of settings.
pub(crate) const SETTINGS: &str = "cfg.json";

/// Name of the file with the factor on signals.
const SCALER: &str = "activation_scaler.json";

/// Architectures that are read.
const ARCHITECTURES: &str =
    "standard, topk, abstopk, batchtopk, matryoshka_batchtopk, jumprelu, gated or matching_pursuit";

/// Settings that change no codes: names, devices, and what training alone looked at.
const HARMLESS: [&str; 110] = [
    // Where it belongs.
    "metadata",
    "device",
    "model_name",
    "model_class_name",
    "hook_name",
    "hook_point",
    "hook_layer",
    "hook_point_layer",
    "hook_head_index",
    "hook_point_head_index",
    "hook_name_out",
    "hook_head_index_out",
    "hf_hook_name",
    "hf_hook_name_out",
    "neuronpedia_id",
    "sae_lens_version",
    "sae_lens_training_version",
    "context_size",
    "prepend_bos",
    "exclude_special_tokens",
    "seqpos_slice",
    "dataset_path",
    "dataset_trust_remote_code",
    "model_from_pretrained_kwargs",
    "is_dataset_tokenized",
    "streaming",
    "verbose",
    "d_head",
    // How it was trained.
    "decoder_init_norm",
    "l1_coefficient",
    "lp_norm",
    "l1_warm_up_steps",
    "use_sparse_activations",
    "aux_loss_coefficient",
    "jumprelu_init_threshold",
    "jumprelu_bandwidth",
    "jumprelu_sparsity_loss_mode",
    "l0_coefficient",
    "l0_warm_up_steps",
    "pre_act_loss_coefficient",
    "jumprelu_tanh_scale",
    "jumprelu_ste_to_input",
    "target_l0",
    "topk_threshold_lr",
    "matryoshka_widths",
    "use_matryoshka_aux_loss",
    "noise_scale",
    "mse_loss_normalization",
    "decoder_heuristic_init",
    "decoder_orthogonal_init",
    "init_encoder_as_decoder_transpose",
    "normalize_sae_decoder",
    "scale_sparsity_penalty_by_decoder_norm",
    "b_dec_init_method",
    "expansion_factor",
    "from_pretrained_path",
    "lr",
    "lr_end",
    "lr_scheduler_name",
    "lr_warm_up_steps",
    "lr_decay_steps",
    "n_restart_cycles",
    "adam_beta1",
    "adam_beta2",
    "train_batch_size",
    "train_batch_size_tokens",
    "use_ghost_grads",
    "feature_sampling_window",
    "feature_sampling_method",
    "resample_batches",
    "feature_reinit_scale",
    "dead_feature_window",
    "dead_feature_threshold",
    "dead_feature_estimation_method",
    "finetuning_tokens",
    "finetuning_method",
    "training_tokens",
    "total_training_tokens",
    "total_training_steps",
    "tokens_per_buffer",
    "n_batches_in_buffer",
    "store_batch_size",
    "store_batch_size_prompts",
    "use_cached_activations",
    "cached_activations_path",
    "act_store_device",
    "autocast",
    "autocast_lm",
    "compile_llm",
    "llm_compilation_mode",
    "compile_sae",
    "sae_compilation_mode",
    "seed",
    "log_to_wandb",
    "wandb_project",
    "wandb_entity",
    "wandb_id",
    "wandb_log_frequency",
    "wandb_log_optimizer_frequency",
    "wandb_group",
    "run_name",
    "unique_id",
    "n_checkpoints",
    "checkpoint_path",
    "output_path",
    "log_optimizer_state_to_wandb",
    "eval_every_n_wandb_logs",
    "eval_batch_size_prompts",
    "n_eval_batches",
    "n_eval_seqs",
];

/// Reads the files of a folder.
pub(super) fn read(folder: &Path) -> Result<(ForeignConfig, Weights)> {
    let mut settings = Settings::read(&folder.join(SETTINGS))?;
    settings.rename("hook_point", "hook_name");
    settings.rename("activation_fn_str", "activation_fn");
    let architecture = architecture(&mut settings)?;
    let mut arrays = Arrays::safetensors(&folder.join(WEIGHTS))?;
    let expected = "a number, at least 1";
    let inputs = settings.count("d_in")?.ok_or_else(|| settings.missing("d_in", expected))?;
    let units = settings.count("d_sae")?.ok_or_else(|| settings.missing("d_sae", expected))?;
    precision(&mut settings, &mut arrays)?;

    let centred = settings.flag("apply_b_dec_to_input")?.unwrap_or(true);
    let (scaling, factor) = normalization(&mut settings, folder)?;
    let of_heads = reshaping(&mut settings)?;
    let by_norm = settings.flag("rescale_acts_by_decoder_norm")?.unwrap_or(false);
    let activation = match architecture {
        Architecture::Standard => Activation::Relu,
        Architecture::TopK | Architecture::AbsTopK => {
            let field = "activation_fn_kwargs";
            let k = match settings.take(field) {
                Some(Value::Object(mut fields)) => {
                    let k = fields.remove("k");
                    if let Some((name, value)) = fields.iter().next() {
                        return Err(settings.refuse(&format!("{field}.{name}"), value, "k alone"));
                    }
                    k
                }
                Some(other) => return Err(settings.refuse(field, &other, "an object with k")),
                None => None,
            };
            let k = match (settings.count("k")?, k) {
                (Some(k), _) => k,
                (None, Some(k)) => match k.as_u64() {
                    Some(k) => k as usize,
                    None => return Err(settings.refuse("activation_fn_kwargs.k", &k, "a whole number")),
                },
                (None, None) => return Err(settings.missing("k", &format!("a number from 1 to {units}"))),
            };
            if architecture == Architecture::TopK { Activation::TopK { k } } else { Activation::AbsTopK { k } }
        }
        Architecture::BatchTopK => {
            // The mean number, which the threshold stands for outside of training.
            settings.number("k")?;
            Activation::JumpRelu
        }
        Architecture::JumpRelu => Activation::JumpRelu,
        Architecture::Gated => Activation::Gated,
        Architecture::MatchingPursuit => Activation::MatchingPursuit {
            max_iterations: settings.count("max_iterations")?.unwrap_or(inputs),
            residual_threshold: (settings.number("residual_threshold")?.unwrap_or(1e-2) / factor) as f32,
            stop_on_duplicate_support: settings.flag("stop_on_duplicate_support")?.unwrap_or(true),
        },
    };
    let ranked = matches!(architecture, Architecture::TopK | Architecture::AbsTopK | Architecture::BatchTopK);
    if by_norm && !ranked {
        let expected = "false with an architecture that ranks no units (standard, where none is named)";
        return Err(settings.wrong("rescale_acts_by_decoder_norm", true, expected));
    }
    // Without units to be ranked these say nothing.
    settings.take("activation_fn_kwargs");
    // As SAELens has it, the switch says nothing: the tensor does.
    settings.flag("finetuning_scaling_factor")?;
    if arrays.holds("scaling_factor") {
        check_no_factor(&mut arrays, units)?;
    }
    let pursues = architecture == Architecture::MatchingPursuit;
    let config = ForeignConfig {
        format: Format::Saelens,
        inputs,
        units,
        activation,
        centred,
        scaling,
        network: origin(&mut settings, "model_name"),
        hook: origin(&mut settings, "hook_name"),
        of_heads,
        metadata: settings.object("metadata"),
    };
    config.check().map_err(|error| settings.named(error))?;
    settings.finish(&HARMLESS)?;

    let mut weights = Weights {
        decoder: arrays.take("W_dec", &[units, inputs])?,
        bias: arrays.take("b_dec", &[inputs])?,
        ..Weights::default()
    };
    if pursues {
        // Tied: without b at the input there is none at the output either.
        if !centred {
            weights.bias.fill(0.0);
        }
    } else {
        weights.encoder = Some(arrays.take("W_enc", &[inputs, units])?);
        let gated = architecture == Architecture::Gated;
        weights.encoder_bias = Some(arrays.take(if gated { "b_gate" } else { "b_enc" }, &[units])?);
        if gated {
            weights.magnitude = Some(arrays.take("r_mag", &[units])?);
            weights.magnitude_bias = Some(arrays.take("b_mag", &[units])?);
        }
    }
    match architecture {
        Architecture::JumpRelu if arrays.holds("log_threshold") => {
            let logarithms = arrays.take("log_threshold", &[units])?;
            weights.threshold = Some(logarithms.into_iter().map(f32::exp).collect());
        }
        Architecture::JumpRelu => weights.threshold = Some(arrays.take("threshold", &[units])?),
        Architecture::BatchTopK => {
            let divisor = if by_norm { factor as f32 } else { 1.0 };
            let threshold = arrays.take("topk_threshold", &[])?.first().copied().unwrap_or(0.0);
            weights.threshold = Some(vec![threshold / divisor; units]);
        }
        _ => {}
    }
    arrays.finish()?;
    fold_factor(&mut weights, factor);
    if by_norm {
        fold_norms(&mut weights, [inputs, units], architecture == Architecture::BatchTopK);
    }
    Ok((config, weights))
}

/// Their architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Architecture {
    Standard,
    TopK,
    AbsTopK,
    /// With one threshold for all units, as a checkpoint of training has it; saved for inference it is jumprelu.
    BatchTopK,
    JumpRelu,
    Gated,
    MatchingPursuit,
}

/// The architecture, which files before version 6 may call by its activation.
fn architecture(settings: &mut Settings) -> Result<Architecture> {
    let name = settings.text("architecture")?.unwrap_or_else(|| "standard".into());
    let activation = settings.text("activation_fn")?;
    let found = match name.as_str() {
        "standard" => Architecture::Standard,
        "topk" => Architecture::TopK,
        "abstopk" => Architecture::AbsTopK,
        "batchtopk" | "matryoshka_batchtopk" => Architecture::BatchTopK,
        "jumprelu" => Architecture::JumpRelu,
        "gated" => Architecture::Gated,
        "matching_pursuit" => Architecture::MatchingPursuit,
        _ => return Err(settings.wrong("architecture", format_args!("{name:?}"), ARCHITECTURES)),
    };
    match activation.as_deref() {
        None | Some("relu") => Ok(found),
        Some("topk") if matches!(found, Architecture::Standard | Architecture::TopK) => Ok(Architecture::TopK),
        Some(other) => Err(settings.wrong("activation_fn", format_args!("{other:?}"), "relu or topk")),
    }
}

/// What values are rounded to.
fn precision(settings: &mut Settings, arrays: &mut Arrays) -> Result<()> {
    let name = settings.text("dtype")?.unwrap_or_else(|| "float32".into());
    let expected = "float32, float64, float16 or bfloat16";
    let precision = Precision::of(&name).ok_or_else(|| settings.wrong("dtype", format_args!("{name:?}"), expected))?;
    arrays.rounded(precision);
    Ok(())
}

/// What is done to signals, and the factor that they were multiplied with.
fn normalization(settings: &mut Settings, folder: &Path) -> Result<(InputScaling, f64)> {
    let field = "normalize_activations";
    let name = match settings.take(field) {
        None | Some(Value::Bool(false)) => "none".to_owned(),
        Some(Value::Bool(true)) => "expected_average_only_in".to_owned(),
        Some(Value::String(name)) => name,
        Some(other) => return Err(settings.refuse(field, &other, "a name")),
    };
    match name.as_str() {
        "none" => Ok((InputScaling::None, 1.0)),
        "constant_norm_rescale" => Ok((InputScaling::ConstantNorm, 1.0)),
        "layer_norm" => Ok((InputScaling::LayerNorm, 1.0)),
        "expected_average_only_in" => {
            let path = folder.join(SCALER);
            if !path.is_file() {
                let expected = format!("none, or the factor on signals in {SCALER} beside it, which is not there");
                return Err(settings.wrong(field, format_args!("{name:?}"), &expected));
            }
            let mut scaler = Settings::read(&path)?;
            let expected = "a finite factor > 0 on signals";
            let factor = scaler.number("scaling_factor")?.ok_or_else(|| scaler.missing("scaling_factor", expected))?;
            if !(factor.is_finite() && factor > 0.0) {
                return Err(scaler.wrong("scaling_factor", factor, expected));
            }
            scaler.finish(&[])?;
            Ok((InputScaling::None, factor))
        }
        _ => {
            let expected = "none, expected_average_only_in, constant_norm_rescale or layer_norm";
            Err(settings.wrong(field, format_args!("{name:?}"), expected))
        }
    }
}

/// Whether signals are heads side by side, which are vectors already.
fn reshaping(settings: &mut Settings) -> Result<bool> {
    match settings.text("reshape_activations")?.as_deref() {
        None | Some("none") => Ok(false),
        Some("hook_z") => Ok(true),
        Some(other) => {
            Err(settings.wrong("reshape_activations", format_args!("{other:?}"), "none, or hook_z: heads side by side"))
        }
    }
}

/// A factor for each unit that is 1 everywhere is what SAELens drops too; it reads no other.
fn check_no_factor(arrays: &mut Arrays, units: usize) -> Result<()> {
    let factors = arrays.take("scaling_factor", &[units])?;
    match factors.iter().find(|factor| (**factor - 1.0).abs() > 1e-5) {
        None => Ok(()),
        Some(factor) => Err(arrays.wrong(format!(
            "tensor scaling_factor: expected ones, found {factor}: a scaling factor of finetuning is not supported"
        ))),
    }
}

/// A name, on its own or in the metadata.
fn origin(settings: &mut Settings, name: &str) -> Option<String> {
    let own = settings.take(name);
    let own = own.or_else(|| settings.metadata(name));
    own.and_then(|value| value.as_str().map(str::to_owned))
}

/// Signals times a factor, as the weights that do the same without it.
fn fold_factor(weights: &mut Weights, factor: f64) {
    if factor == 1.0 {
        return;
    }
    let by = |values: &mut [f32], factor: f64| {
        values.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
    };
    weights.encoder.iter_mut().for_each(|encoder| by(encoder, factor));
    by(&mut weights.decoder, factor.recip());
    by(&mut weights.bias, factor.recip());
}

/// Values times the norms of decoder rows, as the weights that do the same without them. `clamped`: norms are at least 10⁻⁸, as where
/// SAELens folds them itself; else a unit whose row is zero is never active.
fn fold_norms(weights: &mut Weights, [inputs, units]: [usize; 2], clamped: bool) {
    let least = if clamped { 1e-8 } else { 0.0 };
    let norm = |row: &[f32]| row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(least);
    let norms: Vec<f64> = weights.decoder.chunks_exact(inputs).map(norm).collect();
    for (row, norm) in weights.decoder.chunks_exact_mut(inputs).zip(&norms).filter(|(_, norm)| **norm > 0.0) {
        row.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
    let times = |(value, norm): (&mut f32, &f64)| *value = (f64::from(*value) * norm) as f32;
    for row in weights.encoder.iter_mut().flat_map(|encoder| encoder.chunks_exact_mut(units)) {
        row.iter_mut().zip(&norms).for_each(times);
    }
    weights.encoder_bias.iter_mut().for_each(|bias| bias.iter_mut().zip(&norms).for_each(times));
}
