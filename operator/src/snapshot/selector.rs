//! Device selectors: CEL expressions of classes and claims, evaluated against
//! published devices as Kubernetes' own allocator would.
//!
//! The language is a library's; added here are what Kubernetes adds for
//! devices: `device`, quantities and semantic versions. What the library cannot
//! evaluate is an error with a reason, never a silent "no match": the pod that
//! asks so waits and says why.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, Env, ExecutionError, Program, Value};
use vingt_crds::names;

use crate::quantity::Amount;
use crate::world::{Attribute, Device};

/// The longest expression that is looked at.
const MAX_LENGTH: usize = 4096;

/// The deepest nesting of brackets that is looked at: parser and evaluation
/// recurse, and an overflown stack would end the operator.
const MAX_DEPTH: usize = 32;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for extension in [cel::extensions::strings, cel::extensions::lists, cel::extensions::math] {
        // A conflict would leave the extension's functions out, and the expression that needs one says so.
        let _ = env.add_extension(extension);
    }
    Arc::new(env)
});

/// A compiled selector.
pub struct Selector {
    program: Program,
    text: String,
    /// Texts between quotes: the domains it may name are among them.
    quoted: BTreeSet<String>,
    /// Whether it may look at what tells a device from its like.
    personal: bool,
}

impl Selector {
    /// Compiles `text`; the error says what is not supported.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("a device selector has more than {MAX_LENGTH} characters"));
        }
        if depth(text) > MAX_DEPTH {
            return Err(refusal(text, &format!("it nests brackets more than {MAX_DEPTH} deep")));
        }
        let compiled = catch_unwind(AssertUnwindSafe(|| ENV.compile(text)));
        let program = match compiled {
            Ok(Ok(program)) => program,
            Ok(Err(error)) => return Err(refusal(text, &first_line(&error.to_string()))),
            Err(_) => return Err(refusal(text, "it cannot be parsed here")),
        };
        let quoted: BTreeSet<String> = quoted(text);
        // An attribute is named in the text, unless it is found by going through all or by a computed name.
        let computed = [
            ".all(",
            ".exists(",
            ".exists_one(",
            ".map(",
            ".filter(",
            "+",
            ".format(",
            ".join(",
            ".replace(",
        ];
        let named = ["uuid", "UUID", "minor"];
        let personal = computed.iter().chain(&named).any(|part| text.contains(part));
        Ok(Self { program, text: text.to_owned(), quoted, personal })
    }

    /// Whether devices that differ only by their GPU may differ for this selector.
    pub fn personal(&self) -> bool {
        self.personal
    }

    /// Whether `device` is selected; the error says what is not supported.
    pub fn matches(&self, device: &Device) -> Result<bool, String> {
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(device)));
        match evaluated {
            Ok(Ok(Value::Bool(selected))) => Ok(selected),
            Ok(Ok(other)) => {
                Err(refusal(&self.text, &format!("it is not true or false but {}", other.type_of())))
            }
            // The device does not have what the selector asks about.
            Ok(Err(ExecutionError::NoSuchKey(_))) => Ok(false),
            Ok(Err(error)) => Err(refusal(&self.text, &first_line(&error.to_string()))),
            Err(_) => Err(refusal(&self.text, "it cannot be evaluated here")),
        }
    }

    fn evaluate(&self, device: &Device) -> Result<Value, ExecutionError> {
        let mut context = Context::with_env(ENV.clone());
        functions(&mut context).map_err(|error| ExecutionError::function_error("device", error))?;
        context.add_variable_from_value("device", self.subject(device));
        self.program.execute(&context)
    }

    /// The variable `device`.
    fn subject(&self, device: &Device) -> Value {
        let mut attributes: HashMap<String, HashMap<String, Value>> = HashMap::new();
        let mut capacity: HashMap<String, HashMap<String, Value>> = HashMap::new();
        // A domain that the device has nothing of is empty, not an error.
        for domain in &self.quoted {
            attributes.entry(domain.clone()).or_default();
            capacity.entry(domain.clone()).or_default();
        }
        for (name, value) in device.traits.attributes.iter().chain(device.identity.iter()) {
            let (domain, name) = name.split_once('/').unwrap_or((names::DRIVER, name));
            attributes.entry(domain.to_owned()).or_default().insert(name.to_owned(), attribute(value));
        }
        for (name, value) in &device.traits.capacity {
            let (domain, name) = name.split_once('/').unwrap_or((names::DRIVER, name));
            if let Ok(amount) = Amount::parse(value) {
                capacity.entry(domain.to_owned()).or_default().insert(name.to_owned(), quantity(amount));
            }
        }
        let maps = |maps: HashMap<String, HashMap<String, Value>>| -> Value {
            maps.into_iter().map(|(domain, map)| (domain, Value::from(map))).collect::<HashMap<_, _>>().into()
        };
        let fields: HashMap<String, Value> = [
            ("driver".to_owned(), Value::from(names::DRIVER)),
            ("allowMultipleAllocations".to_owned(), Value::Bool(false)),
            ("attributes".to_owned(), maps(attributes)),
            ("capacity".to_owned(), maps(capacity)),
        ]
        .into();
        fields.into()
    }
}

fn refusal(text: &str, why: &str) -> String {
    let short: String = text.chars().take(120).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("the device selector `{short}{dots}` is not supported: {why}")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().chars().take(200).collect()
}

/// How deep brackets are nested at most, those in texts included.
fn depth(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut most = 0;
    for c in text.chars() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        most = most.max(depth);
    }
    most
}

fn quoted(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for quote in ['"', '\''] {
        found.extend(text.split(quote).skip(1).step_by(2).map(str::to_owned));
    }
    found
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Int(value) => Value::Int(*value),
        Attribute::Bool(value) => Value::Bool(*value),
        Attribute::Text(value) => Value::from(value.as_str()),
        Attribute::Version(value) => {
            Version::parse(value).map_or(Value::Null, |version| Value::Opaque(Arc::new(version)))
        }
        Attribute::Other => Value::Null,
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Quantity(Amount);

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.Quantity"
    }
}

fn quantity(amount: Amount) -> Value {
    Value::Opaque(Arc::new(Quantity(amount)))
}

/// A semantic version: three numbers, and whether (and which) pre-release.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: [u64; 3],
    /// A release comes after its pre-releases.
    release: bool,
    pre: Vec<Part>,
}

/// A part of a pre-release: numbers come before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next()?;
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let numbers: Vec<u64> = core.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let part = |part: &str| part.parse().map_or_else(|_| Part::Word(part.to_owned()), Part::Number);
        let pre: Vec<Part> = pre.iter().flat_map(|pre| pre.split('.')).map(part).collect();
        Some(Self { numbers: numbers.try_into().ok()?, release: pre.is_empty(), pre })
    }
}

impl Opaque for Version {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.Semver"
    }
}

fn as_quantity(function: &'static str, value: &Value) -> Result<Amount, ExecutionError> {
    match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<Quantity>().map(|quantity| quantity.0),
        _ => None,
    }
    .ok_or_else(|| ExecutionError::function_error(function, "it is for two quantities or two versions"))
}

fn compare(function: &'static str, one: &Value, other: &Value) -> Result<std::cmp::Ordering, ExecutionError> {
    if let (Value::Opaque(one), Value::Opaque(other)) = (one, other)
        && let (Some(one), Some(other)) = (one.downcast_ref::<Version>(), other.downcast_ref::<Version>())
    {
        return Ok(one.cmp(other));
    }
    Ok(as_quantity(function, one)?.cmp(&as_quantity(function, other)?))
}

/// Declares what Kubernetes adds to CEL for quantities and versions.
fn functions(context: &mut Context) -> Result<(), cel::DeclarationError> {
    context.add_function("quantity", |text: Arc<String>| {
        Amount::parse(&text).map(quantity).map_err(|error| ExecutionError::function_error("quantity", error))
    })?;
    context.add_function("isQuantity", |text: Arc<String>| Amount::parse(&text).is_ok())?;
    context.add_function("semver", |text: Arc<String>| {
        let version = Version::parse(&text).map(|version| Value::Opaque(Arc::new(version)));
        version.ok_or_else(|| {
            ExecutionError::function_error("semver", format!("{text:?} is not a semantic version"))
        })
    })?;
    context.add_function("isSemver", |text: Arc<String>| Version::parse(&text).is_some())?;
    context.add_function("compareTo", |This(one): This<Value>, other: Value| {
        compare("compareTo", &one, &other).map(|order| order as i64)
    })?;
    context.add_function("isGreaterThan", |This(one): This<Value>, other: Value| {
        compare("isGreaterThan", &one, &other).map(std::cmp::Ordering::is_gt)
    })?;
    context.add_function("isLessThan", |This(one): This<Value>, other: Value| {
        compare("isLessThan", &one, &other).map(std::cmp::Ordering::is_lt)
    })?;
    context
        .add_function("sign", |This(value): This<Value>| as_quantity("sign", &value).map(Amount::signum))?;
    context.add_function("isInteger", |This(value): This<Value>| {
        as_quantity("isInteger", &value).map(|amount| amount.as_integer().is_some())
    })?;
    context.add_function("asInteger", |This(value): This<Value>| {
        let integer = as_quantity("asInteger", &value)?.as_integer();
        integer.ok_or_else(|| ExecutionError::function_error("asInteger", "the quantity is not an integer"))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::{Slice, View};

    fn device() -> Device {
        let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "gpu.vingt.dev", "nodeName": "n",
                "pool": {"name": "n", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "a",
                    "attributes": {"type": {"string": "mig"}, "profile": {"string": "3g.40gb"}, "placementStart": {"int": 4},
                        "driverVersion": {"version": "570.133.20"}, "parentUUID": {"string": "GPU-1"},
                        "resource.kubernetes.io/pcieRoot": {"string": "pci0"}, "ecc": {"bool": true}},
                    "capacity": {"memory": {"value": "40192Mi"}, "multiprocessors": {"value": "60"}},
                    "consumesCounters": [{"counterSet": "gpu-0", "counters": {"compute-slices": {"value": "3"}}}]}]}});
        Slice::parse(serde_json::from_value(slice).unwrap()).unwrap().devices.remove(0)
    }

    #[test]
    fn selectors_are_evaluated_as_kubernetes_does() {
        let own = r#"device.attributes["gpu.vingt.dev"]"#;
        let memory = r#"device.capacity["gpu.vingt.dev"].memory"#;
        let cases = [
            (r#"device.driver == "gpu.vingt.dev""#.to_owned(), true),
            ("device.driver == 'gpu.other.dev'".to_owned(), false),
            (format!(r#"device.driver == "gpu.vingt.dev" && {own}.type == "mig""#), true),
            (format!(r#"{own}.profile == "3g.40gb" || {own}.nothing == "x""#), true),
            (format!(r#"{own}.nothing == "x""#), false),
            (format!("has({own}.nothing)"), false),
            (format!(r#""profile" in {own}"#), true),
            (r#""x" in device.attributes["example.com"]"#.to_owned(), false),
            (format!(r#"{own}.profile.startsWith("3g")"#), true),
            (format!(r#"{own}.profile.matches("^[34]g[.]")"#), true),
            (format!(r#"{own}.profile.contains("40")"#), true),
            (format!(r#"{own}.profile in ["1g.10gb", "3g.40gb"]"#), true),
            (format!("{own}.placementStart >= 4 && {own}.ecc"), true),
            (format!(r#"{memory}.compareTo(quantity("30Gi")) >= 0"#), true),
            (format!(r#"{memory}.isGreaterThan(quantity("40Gi"))"#), false),
            (format!(r#"{memory}.isLessThan(quantity("40Gi"))"#), true),
            (format!(r#"{own}.driverVersion.isGreaterThan(semver("570.0.0"))"#), true),
            (format!(r#"{own}.driverVersion.compareTo(semver("570.133.20")) == 0"#), true),
            (r#"device.attributes["resource.kubernetes.io"].pcieRoot == "pci0""#.to_owned(), true),
            (format!(r#"{own}.parentUUID == "GPU-1""#), true),
            (format!(r#"{own}.exists(k, k == "ecc")"#), true),
        ];
        for (text, expected) in cases {
            let selector = Selector::compile(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches(&device()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_evaluated_says_so() {
        for text in
            ["device.driver ==", "1 + 1", "device.driver.nonsense()", &"(".repeat(3000), &"x".repeat(5000)]
        {
            let result = Selector::compile(text).and_then(|selector| selector.matches(&device()));
            let error = result.expect_err(&text.chars().take(40).collect::<String>());
            assert!(error.contains("device selector"), "{error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_a_selector_or_says_why_not(text in r#"[a-z0-9 .,()\[\]{}"'!=<>&|+?:-]{0,60}"#) {
            if let Ok(selector) = Selector::compile(&text) {
                let _ = selector.matches(&device());
            }
        }
    }

    #[test]
    fn only_selectors_that_may_name_a_gpu_are_evaluated_for_each() {
        let personal = |text: &str| Selector::compile(text).unwrap().personal();
        assert!(!personal(r#"device.attributes["gpu.vingt.dev"].profile == "1g.10gb""#));
        assert!(personal(r#"device.attributes["gpu.vingt.dev"].parentUUID == "GPU-1""#));
        assert!(personal(r#"device.attributes["gpu.vingt.dev"].exists(k, k == "x")"#));
        assert!(personal(r#"device.attributes["gpu.vingt.dev"]["mi" + "nor"] == 1"#));
    }

    #[test]
    fn versions_are_ordered_as_semantic_versions() {
        let order =
            ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.0.1", "1.10.0"];
        let versions: Vec<_> = order.iter().map(|text| Version::parse(text).unwrap()).collect();
        assert!(versions.is_sorted(), "{versions:?}");
        assert_eq!(Version::parse("1.0"), None);
    }
}
