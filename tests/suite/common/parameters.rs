//! All parameters of a network as lists of values.

use super::{host, tensor};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor};

struct Values(Vec<Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(host(param.val()));
    }
}

struct Slopes<'a>(&'a Gradients, Vec<Vec<f32>>);

impl ModuleVisitor for Slopes<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push(host(param.val().grad(self.0).expect("a gradient for every parameter")));
    }
}

struct Fill(std::vec::IntoIter<Vec<f32>>);

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let values = self.0.next().expect("values for every parameter");
        param.map(|old| {
            let new = tensor(&values, old.dims(), &old.device());
            if old.is_require_grad() { new.require_grad() } else { new }
        })
    }
}

/// The values of all parameters, in the order of the module.
pub fn values(network: &impl Module) -> Vec<Vec<f32>> {
    let mut values = Values(Vec::new());
    network.visit(&mut values);
    values.0
}

/// The gradients of all parameters, in the order of the module.
pub fn slopes(network: &impl Module, gradients: &Gradients) -> Vec<Vec<f32>> {
    let mut slopes = Slopes(gradients, Vec::new());
    network.visit(&mut slopes);
    slopes.1
}

/// The network with other values in all parameters.
pub fn filled<M: Module>(network: M, values: Vec<Vec<f32>>) -> M {
    network.map(&mut Fill(values.into_iter()))
}
