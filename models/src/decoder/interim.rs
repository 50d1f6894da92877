use concord_kernels::ops::Atoms;
use concord_kernels::{Device, KernelError, Tensor};
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    pub groups: usize,
    pub group_width: usize,
    pub offset: usize,
    pub width: usize,
}
use crate::config::HiddenActivation as Activation;
pub trait Interim {
    fn layernorm(
        &self,
        _x: &Tensor,
        _w: &Tensor,
        _b: Option<&Tensor>,
        _e: f32,
    ) -> Result<(Tensor, Tensor, Tensor), KernelError> {
        todo!()
    }
    fn layernorm_dx(
        &self,
        _x: &Tensor,
        _w: &Tensor,
        _b: &Tensor,
        _m: &Tensor,
        _e: &Tensor,
    ) -> Result<Tensor, KernelError> {
        todo!()
    }
    fn layernorm_dw(
        &self,
        _x: &Tensor,
        _w: &Tensor,
        _b: &Tensor,
        _m: &Tensor,
        _e: usize,
        _a: &Atoms,
    ) -> Result<Tensor, KernelError> {
        todo!()
    }
    fn take_columns(&self, _x: &Tensor, _w: &Columns) -> Result<Tensor, KernelError> {
        todo!()
    }
    fn put_columns(&self, _x: &mut Tensor, _w: &Columns, _p: &Tensor) -> Result<(), KernelError> {
        todo!()
    }
    fn gated(&self, x: &Tensor, w: &Tensor, _a: Activation) -> Result<Tensor, KernelError>;
    fn gated_backward(
        &self,
        _d: &Tensor,
        _x: &Tensor,
        _w: &Tensor,
        _a: Activation,
    ) -> Result<(Tensor, Tensor), KernelError>;
    fn activation(&self, _x: &Tensor, _a: Activation) -> Result<Tensor, KernelError> {
        todo!()
    }
    fn activation_backward(
        &self,
        _x: &Tensor,
        _g: &Tensor,
        _a: Activation,
    ) -> Result<Tensor, KernelError> {
        todo!()
    }
    fn soft_cap(&self, _x: &Tensor, _cap: f32) -> Result<Tensor, KernelError> {
        todo!()
    }
}
impl Interim for Device {
    fn gated(&self, x: &Tensor, w: &Tensor, _a: Activation) -> Result<Tensor, KernelError> {
        self.swiglu(x, w)
    }
    fn gated_backward(
        &self,
        d: &Tensor,
        x: &Tensor,
        w: &Tensor,
        _a: Activation,
    ) -> Result<(Tensor, Tensor), KernelError> {
        self.swiglu_backward(d, x, w)
    }
}
