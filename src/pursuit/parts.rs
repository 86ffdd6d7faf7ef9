//! Signals in parts, where a device has no memory for all of a problem at once.

use super::observer::Share;
use super::{Observer, Problem, Pursued, Pursuit};
use crate::device::{guarded, is_for_memory, is_host, note_part};
use crate::error::{Error, Result};
use burn::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Signals for whose codes of so many values a device of this process had memory, after it had none for twice as many.
static MOST: Mutex<BTreeMap<(String, usize), usize>> = Mutex::new(BTreeMap::new());

/// Codes the signals of a problem as [`Pursuit::solve`] does, on devices other than the host in halves, and halves of these, as long as there
/// is no memory for all; [`crate::device::fewest_at_a_time`] tells of it. Signals do not depend on each other: their codes differ from those
/// of the whole by rounding at most.
///
/// # Errors
/// As [`Pursuit::solve`]; [`Error::DeviceFailed`] where there is no memory for one signal, or the device was lost.
pub fn solve_in_parts<P: Pursuit + ?Sized>(pursuit: &P, problem: &Problem) -> Result<Pursued> {
    let device = problem.operator().device();
    if is_host(&device) || problem.count() == 0 {
        return pursuit.solve(problem);
    }
    let key = (format!("{device:?}"), problem.operator().code().len());
    let known = || MOST.lock().unwrap_or_else(PoisonError::into_inner);
    let most = known().get(&key).copied();
    let (found, fits) = in_parts(pursuit, problem, most.unwrap_or(usize::MAX))?;
    if let Some(fits) = fits {
        note_part(fits);
        let mut known = known();
        let most = known.get(&key).map_or(fits, |most| fits.min(*most));
        known.insert(key, most);
    }
    Ok(found)
}

/// What was found in parts of at most so many signals; and how many the parts had at last, where there was no memory for those.
fn in_parts<P: Pursuit + ?Sized>(pursuit: &P, problem: &Problem, most: usize) -> Result<(Pursued, Option<usize>)> {
    let count = problem.count();
    let rising = problem.observer().map(|observer| Rising { observer, told: Mutex::new(0.0) });
    let (mut found, mut start, mut most, mut fits): (Vec<Pursued>, _, _, _) = (Vec::new(), 0, most, None);
    while start < count {
        let size = most.clamp(1, count - start);
        let [from, part] = [start, size].map(|signals| signals as f64 / count as f64);
        let share = rising.as_ref().map(|observer| Share { observer, from, part });
        let solved = guarded(|| {
            let part = if size == count { problem.clone() } else { problem.rows(start..start + size)? };
            match &share {
                Some(share) => pursuit.solve(&part.with_observer(share)),
                None => pursuit.solve(&part),
            }
        });
        match solved {
            Ok(part) => {
                found.push(part);
                start += size;
            }
            Err(Error::DeviceFailed { reason, .. }) if size > 1 && is_for_memory(&reason) => {
                most = size.div_ceil(2);
                fits = Some(most);
            }
            Err(error) => return Err(error),
        }
    }
    let found = if found.len() == 1 { found.remove(0) } else { joined(found) };
    Ok((found, fits))
}

/// An observer that hears of no part twice: what was done when the memory ran out is done again.
#[derive(Debug)]
struct Rising<'a> {
    observer: &'a dyn Observer,
    told: Mutex<f64>,
}

impl Observer for Rising<'_> {
    fn is_cancelled(&self) -> bool {
        self.observer.is_cancelled()
    }

    fn progress(&self, done: f64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if done > *told {
            *told = done;
            self.observer.progress(done);
        }
    }
}

fn joined(parts: Vec<Pursued>) -> Pursued {
    let shallower = parts.first().map_or(0, |part| part.shallower.len());
    let all = |of: &dyn Fn(&Pursued) -> Tensor<4>| Tensor::cat(parts.iter().map(of).collect(), 0);
    Pursued {
        codes: all(&|part| part.codes.clone()),
        shallower: (0..shallower).map(|layer| all(&|part| part.shallower[layer].clone())).collect(),
        reports: parts.iter().flat_map(|part| part.reports.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fail;
    use crate::geometry::{LayerShape, SignalShape};
    use crate::model::{ModelConfig, OperatorForm};
    use crate::pursuit::{Lambda, LayeredBasisPursuitConfig, to_host};
    use burn::tensor::TensorData;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A pursuit on a device with memory for so many signals.
    struct Small<P> {
        pursuit: P,
        most: usize,
        reason: &'static str,
        failures: AtomicUsize,
    }

    impl<P: Pursuit> Pursuit for Small<P> {
        fn name(&self) -> &'static str {
            "small"
        }

        fn solve(&self, problem: &Problem) -> Result<Pursued> {
            if problem.count() > self.most {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if let Some(observer) = problem.observer() {
                    observer.progress(0.5);
                }
                fail(&problem.operator().device(), self.reason);
            }
            self.pursuit.solve(problem)
        }
    }

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<f64>>);

    impl Observer for Heard {
        fn is_cancelled(&self) -> bool {
            false
        }

        fn progress(&self, done: f64) {
            self.0.lock().unwrap().push(done);
        }
    }

    #[test]
    fn parts_are_the_whole() {
        let device = crate::device::named(None).unwrap();
        let layers = vec![LayerShape::new(4, 3, 1), LayerShape::new(6, 3, 1)];
        let model = ModelConfig::new(SignalShape::new(1, 8, 8), layers).init_random(0, &device).unwrap();
        let operator = model.operator(SignalShape::new(1, 8, 8), OperatorForm::Auto).unwrap();
        let values: Vec<f32> = (0..7 * 64).map(|at| ((at * at) as f32 * 0.37).sin()).collect();
        let signals = Tensor::from_data(TensorData::new(values, [7, 1, 8, 8]), &device);
        let pursuit = || LayeredBasisPursuitConfig::default().init().unwrap();
        let heard = Heard::default();
        let lambdas = |from: f32| Lambda::PerSignal((0..7).map(|at| from + 0.01 * at as f32).collect());
        let problem = Problem::new(&operator, signals).unwrap().with_lambda(lambdas(0.1)).unwrap();
        let problem = problem.with_shallower_lambda(vec![lambdas(0.05)]).unwrap().with_observer(&heard);
        let whole = pursuit().solve(&problem).unwrap();
        heard.0.lock().unwrap().clear();
        let reason = "can't allocate buffer of size: 8";
        let small = Small { pursuit: pursuit(), most: 2, reason, failures: AtomicUsize::new(0) };
        // 7, then 4, then 2 are tried.
        let (parts, fits) = in_parts(&small, &problem, usize::MAX).unwrap();
        assert_eq!((small.failures.load(Ordering::Relaxed), fits), (2, Some(2)));
        let told = heard.0.lock().unwrap().clone();
        assert!(told.is_sorted() && told.contains(&0.5) && *told.last().unwrap() <= 1.0, "{told:?}");
        let (_, fits) = in_parts(&small, &problem, 2).unwrap();
        assert_eq!((small.failures.load(Ordering::Relaxed), fits), (2, None));
        for (found, expected) in parts.representations(&operator).into_iter().zip(whole.representations(&operator)) {
            assert_eq!(found.dims(), expected.dims());
            let apart = to_host(found - expected).into_iter().fold(0.0f32, |most, value| most.max(value.abs()));
            assert!(apart < 1e-3, "{apart}");
        }
        let lambda = |pursued: &Pursued| pursued.reports.iter().map(|report| report.lambda).collect::<Vec<_>>();
        assert_eq!(lambda(&parts), lambda(&whole));
        // Not even one; and a device that fails for another reason is not asked again.
        for (reason, failures) in [(reason, 4), ("the device was lost", 1)] {
            let none = Small { pursuit: pursuit(), most: 0, reason, failures: AtomicUsize::new(0) };
            let error = in_parts(&none, &problem, usize::MAX).unwrap_err();
            assert!(matches!(&error, Error::DeviceFailed { .. }) && error.to_string().contains(reason), "{error}");
            assert_eq!(none.failures.load(Ordering::Relaxed), failures);
        }
    }
}
