printf 'Content-Type: text/plain\r\n\r\ncgi as %s: %s %s\n' "$(id -un)" "$REQUEST_METHOD" "$REQUEST_URI"
