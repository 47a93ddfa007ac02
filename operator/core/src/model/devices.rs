//! The list of devices of a GPU, which GPUs that are alike share. What a device is, is not said here.

use std::ops::{Deref, DerefMut};
use std::slice::Iter;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Device;

/// The devices of a GPU, behind a pointer: a clone costs nothing, and a change is made to a copy of its own where
/// others share the list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Devices(Arc<Vec<Device>>);

impl Devices {
    /// Where the list is: the same for those that share it, and different for all others that live at the same time.
    pub(crate) fn address(&self) -> *const Vec<Device> {
        Arc::as_ptr(&self.0)
    }
}

impl Deref for Devices {
    type Target = Vec<Device>;

    fn deref(&self) -> &Vec<Device> {
        &self.0
    }
}

impl DerefMut for Devices {
    fn deref_mut(&mut self) -> &mut Vec<Device> {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a> IntoIterator for &'a Devices {
    type Item = &'a Device;
    type IntoIter = Iter<'a, Device>;

    fn into_iter(self) -> Iter<'a, Device> {
        self.iter()
    }
}

impl From<Vec<Device>> for Devices {
    fn from(devices: Vec<Device>) -> Self {
        Self(Arc::new(devices))
    }
}

impl FromIterator<Device> for Devices {
    fn from_iter<I: IntoIterator<Item = Device>>(devices: I) -> Self {
        devices.into_iter().collect::<Vec<_>>().into()
    }
}
