//! The labels of a web service's objects: those of the command until 2020, and those of the later one.

use std::collections::BTreeMap;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// The name of the tool, at all objects of its web service.
const NAME: &str = "name";
/// Set by the command until 2020; kube2proxy selects it.
const OLD: [(&str, &str); 2] =
    [("tools.wmflabs.org/webservice", "true"), ("tools.wmflabs.org/webservice-version", "1")];
/// The program that manages the object.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "webservice");
/// What the object is for.
const COMPONENT: &str = "app.kubernetes.io/component";
/// Mutating webhooks mount the homes into Pods with it.
const TOOLFORGE: (&str, &str) = ("toolforge", "tool");

fn labels(component: &str, name: &str) -> Labels {
    let pairs = [TOOLFORGE, MANAGED_BY, (COMPONENT, component), (NAME, name)];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// The labels that the Deployment and the Service select by.
pub fn selected_by(tool: &str) -> Labels {
    labels("web", tool)
}

/// All labels of a web service's objects.
pub fn web(tool: &str) -> Labels {
    let mut labels = selected_by(tool);
    labels.extend(OLD.map(|(name, value)| (name.to_owned(), value.to_owned())));
    labels
}

/// The labels of an interactive Pod. Its name differs from the tool's, so that no Service of the tool selects it.
pub fn shell(pod: &str) -> Labels {
    labels("shell", pod)
}

/// Selects the interactive Pods.
pub fn shell_selector() -> String {
    let (name, value) = MANAGED_BY;
    format!("{COMPONENT}=shell,{name}={value}")
}

/// Selectors of everything that this command, or the one until 2020, has made for the web service.
pub fn web_selectors(tool: &str) -> [String; 2] {
    [selector(&selected_by(tool)), format!("{NAME}={tool},{}={}", OLD[0].0, OLD[0].1)]
}

/// The selector of all these labels.
pub fn selector(labels: &Labels) -> String {
    let terms: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    terms.join(",")
}

/// Whether the labels have all of these.
pub fn have(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_services_have_both_sets() {
        let want = [
            ("app.kubernetes.io/component", "web"),
            ("app.kubernetes.io/managed-by", "webservice"),
            ("name", "hello"),
            ("toolforge", "tool"),
            ("tools.wmflabs.org/webservice", "true"),
            ("tools.wmflabs.org/webservice-version", "1"),
        ];
        assert_eq!(web("hello"), want.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(have(&web("hello"), &selected_by("hello")) && !have(&web("hello"), &selected_by("other")));
    }

    #[test]
    fn shells_are_not_selected_with_the_web_service() {
        let shell = shell("shell-1");
        let old_service = Labels::from([("name".to_owned(), "hello".to_owned())]);
        assert!(!have(&shell, &selected_by("hello")) && !have(&shell, &old_service));
    }
}
