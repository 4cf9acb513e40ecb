<?php
$user = posix_getpwuid(posix_geteuid())["name"];
header("Content-Type: text/plain");
echo PHP_SAPI, " as $user: ", $_SERVER["REQUEST_METHOD"], " ", $_SERVER["REQUEST_URI"], "\n";
