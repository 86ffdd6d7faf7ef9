//! What is measured of a theorem's pursuit against what the theorem promises.

use mlcsc::theory::{Errors, Promise, Support, Theorem};
use std::collections::BTreeMap;

/// Checks that no error is beyond its bound, but for a thousandth of it and for `slack`, and that the deepest support is as promised.
pub fn check_promise(theorem: &Theorem, promise: &Promise, errors: &[Errors], slack: f64) {
    for (layer, (bound, error)) in promise.layers.iter().zip(errors).enumerate() {
        let bound = bound.as_ref().unwrap();
        let what = format!("{} layer {}: {error:?} of {bound:?}", theorem.name(), layer + 1);
        for (found, promised) in
            [(error.global, bound.global), (error.local, bound.local), (error.largest, bound.largest)]
        {
            assert!(found <= promised * (1.0 + 1e-3) + slack, "{what}");
        }
    }
    let deepest = &errors[errors.len() - 1];
    match promise.support {
        Support::Equal => assert!(deepest.equal, "{}", theorem.name()),
        Support::Contained => assert!(deepest.contained, "{}", theorem.name()),
        Support::Unknown => {}
    }
}

/// Checks that errors were measured for every theorem at least so often.
pub fn check_all_measured(measured: &BTreeMap<&str, usize>, least: usize) {
    for theorem in Theorem::all() {
        let count = measured.get(theorem.name()).copied().unwrap_or(0);
        assert!(count >= least, "{}: {measured:?}", theorem.name());
    }
}
