//! Injected faults: the n-th call, on either side of the work, in any function.

use std::time::{Duration, Instant};

use nvml_emulator::{ANY, Action, Code, Moment};

use crate::calls::{create_at, gpu};
use crate::node::Node;

#[test]
fn the_nth_call_fails_once_before_or_after_its_work() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    let function = "nvmlDeviceCreateGpuInstanceWithPlacement";
    node.emulator.inject(function, 2, Action::Error(Code::GpuIsLost), Moment::Before).unwrap();
    node.emulator.inject(function, 3, Action::Error(Code::Unknown), Moment::After).unwrap();
    create_at(&library, gpu, 19, 0, 1).expect("the first call works");
    assert_eq!(create_at(&library, gpu, 19, 1, 1), Err(Code::GpuIsLost.raw()));
    assert_eq!(create_at(&library, gpu, 19, 2, 1), Err(Code::Unknown.raw()));
    create_at(&library, gpu, 19, 3, 1).expect("the fourth call works");
    let starts: Vec<u32> = node.emulator.occupancy().unwrap()[0].partitions.iter().map(|p| p.start).collect();
    assert_eq!(starts, [0, 2, 3], "the second call did nothing, the third did its work");
    assert!(node.emulator.faults().unwrap().iter().all(|fault| fault.fired_in.as_deref() == Some(function)));
}

#[test]
fn any_call_can_be_hit_and_the_function_is_recorded() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    node.emulator.inject(ANY, 2, Action::Error(Code::Timeout), Moment::Before).unwrap();
    let gpu = gpu(&library, 0);
    assert_eq!(create_at(&library, gpu, 19, 0, 1), Err(Code::Timeout.raw()));
    let faults = node.emulator.faults().unwrap();
    assert_eq!(faults[0].fired_in.as_deref(), Some("nvmlDeviceCreateGpuInstanceWithPlacement"));

    node.emulator.inject("nvmlDeviceGetFanSpeed", 1, Action::Error(Code::NoData), Moment::Before).unwrap();
    let mut speed = 0;
    // SAFETY: points to a local.
    unsafe {
        assert_eq!(library.nvmlDeviceGetFanSpeed(gpu, &raw mut speed), Code::NoData.raw(), "stubs too");
        assert_eq!(library.nvmlDeviceGetFanSpeed(gpu, &raw mut speed), Code::NotSupported.raw());
    }
    node.emulator.inject(ANY, 1, Action::Error(Code::Timeout), Moment::Before).unwrap();
    node.emulator.clear_faults().unwrap();
    create_at(&library, gpu, 19, 0, 1).expect("the fault was taken back");
}

#[test]
fn a_failed_initialization_is_none() {
    let node = Node::h100s(1, true);
    node.emulator.inject("nvmlInit_v2", 1, Action::Error(Code::DriverNotLoaded), Moment::Before).unwrap();
    let failed = nvml_wrapper::Nvml::builder().lib_path(node.library().as_os_str()).init();
    assert!(matches!(failed, Err(nvml_wrapper::error::NvmlError::DriverNotLoaded)));
    assert_eq!(node.nvml().device_count().unwrap(), 1);
}

#[test]
fn a_delay_delays() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    node.emulator.inject("nvmlDeviceGetCount_v2", 1, Action::DelayMs(50), Moment::Before).unwrap();
    let (mut count, start) = (0, Instant::now());
    // SAFETY: points to a local.
    assert_eq!(unsafe { library.nvmlDeviceGetCount_v2(&raw mut count) }, 0);
    assert!(start.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_kill_strikes_the_calling_process_on_the_chosen_side() {
    for (moment, partitions) in [(Moment::Before, 0), (Moment::After, 1)] {
        let node = Node::h100s(1, true);
        node.emulator.inject("nvmlDeviceCreateGpuInstanceWithPlacement", 1, Action::Kill, moment).unwrap();
        let status = crate::sharing::start("create", &node).wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        assert_eq!(node.emulator.occupancy().unwrap()[0].partitions.len(), partitions);
    }
}
