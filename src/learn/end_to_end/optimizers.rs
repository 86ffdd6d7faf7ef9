//! burn's optimizers and schedulers as the settings say.

use crate::error::{Error, Result};
use crate::learn::optimization::{LearningRateSchedule, OptimizationConfig, Optimizer};
use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::LrSchedulerConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLrScheduler, ModuleLrSchedulerConfig};
use burn::module::ParamGroup;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig};

pub(super) fn optimizer(config: &OptimizationConfig) -> ModuleOptimizer {
    let clipping = config.clip_norm.map(GradientClippingConfig::Norm);
    let decay = (config.weight_decay > 0.0).then_some(WeightDecayConfig { penalty: config.weight_decay });
    match config.optimizer {
        Optimizer::Sgd => {
            let momentum = MomentumConfig { momentum: config.momentum, dampening: 0.0, nesterov: false };
            SgdConfig::new()
                .with_momentum((config.momentum > 0.0).then_some(momentum))
                .with_weight_decay(decay)
                .with_gradient_clipping(clipping)
                .init()
        }
        Optimizer::Adam => {
            AdamConfig::new().with_epsilon(config.epsilon).with_weight_decay(decay).with_grad_clipping(clipping).init()
        }
        Optimizer::AdamW => AdamWConfig::new()
            .with_epsilon(config.epsilon)
            .with_weight_decay(config.weight_decay)
            .with_grad_clipping(clipping)
            .init(),
    }
}

pub(super) fn scheduler(
    config: &OptimizationConfig,
    steps: usize,
    own: Vec<(ParamGroup, f64)>,
) -> Result<ModuleLrScheduler> {
    let of = |start: f64| -> LrSchedulerConfig {
        let end = start * config.final_rate;
        match config.schedule {
            LearningRateSchedule::Constant => start.into(),
            LearningRateSchedule::Linear => LinearLrSchedulerConfig::new(start, end, steps).into(),
            LearningRateSchedule::Cosine => CosineAnnealingLrSchedulerConfig::new(start, steps).with_min_lr(end).into(),
        }
    };
    let base = ModuleLrSchedulerConfig::new(of(config.learning_rate));
    let all = own.into_iter().fold(base, |all, (group, rate)| all.with_group(group, of(rate)));
    all.init().map_err(|reason| Error::parameter("learning_rate", config.learning_rate, reason))
}
