//! What a claim asks of vingt: nothing, devices that are decided here, or
//! something in a form that is not served, with the reason and what to write
//! instead.

use k8s_openapi::api::resource::v1::{DeviceClass, DeviceRequest, DeviceSelector, ResourceClaimSpec};
use vingt_crds::names;

use crate::world::{Cache, Key};

/// The most devices that a claim can be allocated.
pub const MAX_COUNT: u32 = 32;

/// What a claim asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// No device of vingt's driver.
    Foreign,
    /// Devices of vingt's, all of them served.
    Devices(Vec<AskedDevices>),
    /// Devices of vingt's in a form that is not served, or that cannot be: why, and what to do.
    Refused(String),
}

/// One request of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedDevices {
    /// Name of the request.
    pub request: String,
    /// How many devices.
    pub count: u32,
    /// The class it names.
    pub class: String,
    /// Selectors of the class and of the request.
    pub selectors: Vec<String>,
}

/// What a claim of this spec asks for.
pub fn of_claim(spec: &ResourceClaimSpec, classes: &Cache<DeviceClass>) -> Ask {
    let devices = spec.devices.as_ref();
    let requests = devices.and_then(|devices| devices.requests.as_deref()).unwrap_or_default();
    let ours: Vec<bool> = requests.iter().map(|request| asks_us(request, classes)).collect();
    if !ours.contains(&true) {
        return Ask::Foreign;
    }
    if ours.contains(&false) {
        return Ask::Refused(
            "a claim that asks for devices of vingt and of another driver is not served: put them in two claims, \
             and the one of vingt in a pod that has no other"
                .to_owned(),
        );
    }
    if devices
        .and_then(|devices| devices.constraints.as_ref())
        .is_some_and(|constraints| !constraints.is_empty())
    {
        return Ask::Refused(
            "constraints between requests are not served: leave out spec.devices.constraints".to_owned(),
        );
    }
    match requests.iter().map(|request| of_request(request, classes)).collect::<Result<Vec<_>, _>>() {
        Ok(devices) if devices.iter().map(|asked| asked.count).sum::<u32>() > MAX_COUNT => {
            Ask::Refused(format!("a claim can be allocated at most {MAX_COUNT} devices: use several claims"))
        }
        Ok(devices) => Ask::Devices(devices),
        Err(why) => Ask::Refused(why),
    }
}

/// Whether a class is of vingt's devices: it says so in a selector, or in its name.
pub fn is_ours(class: &str, classes: &Cache<DeviceClass>) -> bool {
    let named = class.strip_suffix(names::GROUP).is_some_and(|rest| rest.ends_with('.'));
    let selects = |class: &DeviceClass| selectors(class).any(|text| text.contains(names::DRIVER));
    classes.get(&Key::new("", class)).map_or(named, |class| selects(class) || named)
}

/// The selectors of a class; the error says that there is no such class.
pub fn class_selectors(class: &str, classes: &Cache<DeviceClass>) -> Result<Vec<String>, String> {
    let Some(found) = classes.get(&Key::new("", class)) else {
        return Err(format!("there is no DeviceClass {class}: `kubectl get deviceclasses` lists them"));
    };
    Ok(selectors(found).collect())
}

fn selectors(class: &DeviceClass) -> impl Iterator<Item = String> {
    class.spec.iter().filter_map(|spec| spec.selectors.as_ref()).flatten().map(text)
}

fn asks_us(request: &DeviceRequest, classes: &Cache<DeviceClass>) -> bool {
    let exactly = request.exactly.iter().map(|exactly| &exactly.device_class_name);
    let first = request.first_available.iter().flatten().map(|sub| &sub.device_class_name);
    exactly.chain(first).any(|class| is_ours(class, classes))
}

fn of_request(request: &DeviceRequest, classes: &Cache<DeviceClass>) -> Result<AskedDevices, String> {
    let name = &request.name;
    let Some(exactly) = &request.exactly else {
        return Err(format!(
            "request {name}: prioritized lists (firstAvailable) are not served: write one request with exactly, \
             for example deviceClassName: mig-3g.40gb.vingt.dev"
        ));
    };
    if exactly.admin_access == Some(true) {
        return Err(format!("request {name}: adminAccess is not served: ask for a device of your own"));
    }
    if exactly.allocation_mode.as_deref().unwrap_or("ExactCount") != "ExactCount" {
        return Err(format!(
            "request {name}: allocationMode All is not served: write allocationMode ExactCount and a count"
        ));
    }
    if exactly.capacity.is_some() {
        return Err(format!(
            "request {name}: capacity requests are not served: select devices by a class or a CEL selector"
        ));
    }
    if exactly.derived_attributes.as_ref().is_some_and(|attributes| !attributes.is_empty()) {
        return Err(format!("request {name}: derivedAttributes are not served: leave them out"));
    }
    let count =
        u32::try_from(exactly.count.unwrap_or(1)).ok().filter(|count| (1..=MAX_COUNT).contains(count));
    let count = count.ok_or_else(|| format!("request {name}: count must be from 1 to {MAX_COUNT}"))?;
    let mut selectors = class_selectors(&exactly.device_class_name, classes)
        .map_err(|why| format!("request {name}: {why}"))?;
    selectors.extend(exactly.selectors.iter().flatten().map(text));
    Ok(AskedDevices { request: name.clone(), count, class: exactly.device_class_name.clone(), selectors })
}

fn text(selector: &DeviceSelector) -> String {
    selector.cel.as_ref().map(|cel| cel.expression.clone()).unwrap_or_default()
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::super::layout::tests::list;
    use super::*;
    use crate::world::World;

    /// A device class with one selector.
    pub fn class(name: &str, selector: &str) -> Value {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name, "resourceVersion": "1"},
            "spec": {"selectors": [{"cel": {"expression": selector}}]}})
    }

    fn ask(requests: &Value) -> Ask {
        let mut world = World::default();
        list::<DeviceClass>(
            &mut world,
            [
                class("mig.vingt.dev", r#"device.driver == "gpu.vingt.dev""#),
                class("mine", r#"device.driver == "gpu.vingt.dev""#),
                class("other", r#"device.driver == "other.example.com""#),
                class("any", "true"),
            ],
        );
        let spec = serde_json::from_value(json!({"devices": {"requests": requests}})).unwrap();
        of_claim(&spec, &world.classes)
    }

    fn exactly(name: &str, class: &str) -> Value {
        json!({"name": name, "exactly": {"deviceClassName": class, "allocationMode": "ExactCount", "count": 1}})
    }

    #[test]
    fn claims_of_other_drivers_are_left_alone() {
        assert_eq!(ask(&json!([exactly("a", "other")])), Ask::Foreign);
        assert_eq!(
            ask(&json!([exactly("a", "any")])),
            Ask::Foreign,
            "the fence keeps it off vingt's devices"
        );
        assert_eq!(ask(&json!([exactly("a", "unknown.example.com")])), Ask::Foreign);
    }

    #[test]
    fn a_request_is_the_class_and_its_own_selectors() {
        let mut request = exactly("gpu", "mine");
        request["exactly"]["selectors"] = json!([{"cel": {"expression": "x"}}]);
        let expected = AskedDevices {
            request: "gpu".into(),
            count: 1,
            class: "mine".into(),
            selectors: vec![r#"device.driver == "gpu.vingt.dev""#.into(), "x".into()],
        };
        assert_eq!(ask(&json!([request])), Ask::Devices(vec![expected]));
    }

    #[test]
    fn forms_that_are_not_served_say_what_to_write_instead() {
        let with = |field: &str, value: Value| {
            let mut request = exactly("gpu", "mig.vingt.dev");
            request["exactly"][field] = value;
            json!([request])
        };
        let first =
            json!([{"name": "gpu", "firstAvailable": [{"name": "a", "deviceClassName": "mig.vingt.dev"}]}]);
        let cases = [
            (first, "firstAvailable"),
            (with("adminAccess", json!(true)), "adminAccess"),
            (with("allocationMode", json!("All")), "ExactCount"),
            (with("count", json!(0)), "count"),
            (with("count", json!(10_000_000)), "count"),
            (with("capacity", json!({"requests": {"memory": "1Gi"}})), "capacity"),
            (json!([exactly("a", "mig.vingt.dev"), exactly("b", "other")]), "two claims"),
            (json!([exactly("a", "mig-9g.vingt.dev")]), "no DeviceClass"),
        ];
        for (requests, word) in cases {
            let Ask::Refused(why) = ask(&requests) else { panic!("{requests} is served") };
            assert!(why.contains(word), "{why}");
        }
    }
}
