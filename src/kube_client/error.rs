//! One line for an error of the API server or of its connection.

/// The status that the API server answered, or the chain of causes.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(kube::Error::Api(status)) = error.downcast_ref() {
        return format!("{} ({})", status.message, status.code);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = match error.downcast_ref() {
            Some(kube::Error::Api(status)) => format!("{} ({})", status.message, status.code),
            _ => error.to_string(),
        };
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
