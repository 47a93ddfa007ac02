//! Turning MIG mode on and off.

use crate::cards::Architecture;
use crate::code::Code;
use crate::state::Gpu;

/// Asks for a mode. The answer is the activation status: an error there means that the mode is pending.
pub(crate) fn set(gpu: &mut Gpu, enable: bool) -> Result<Result<(), Code>, Code> {
    gpu.mig_pending = enable;
    if gpu.mig == enable {
        return Ok(Ok(()));
    }
    if !gpu.processes.is_empty() || !gpu.instances.is_empty() {
        return Ok(Err(Code::InUse));
    }
    if gpu.card()?.architecture == Architecture::Ampere {
        return Ok(Err(Code::ResetRequired));
    }
    gpu.mig = enable;
    Ok(Ok(()))
}

/// Resets a GPU: a pending mode becomes the mode. With processes or instances it cannot be reset.
pub(crate) fn reset(gpu: &mut Gpu) -> Result<(), Code> {
    if !gpu.processes.is_empty() || !gpu.instances.is_empty() {
        return Err(Code::InUse);
    }
    gpu.mig = gpu.mig_pending;
    Ok(())
}
