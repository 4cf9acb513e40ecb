# max_fails and fail_timeout work as for nginx's own `server`: the same failures and responses send the same requests to the
# failing backend, through a static upstream and through the module.
use lib 't/lib';
use UrlproxyTest 'no_plan';

# Counts the requests that reach the test's own backend A, which fails, answers or delays them; the other backend gets the
# rest. Also returns the clients that still wait.
sub count_on_a {
    my ($path, $requests, $does) = @_;
    my ($count, @waiting) = (0);
    for (1 .. $requests) {
        my $client = start_ask("GET $path");
        if (next_backend($client) eq 'A') {
            $count++;
            my $backend = accept_on('A');
            if ($does eq 'waits') { push @waiting, [$client, $backend]; next }
            read_message($backend);
            send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") if $does eq 'answers';
            close $backend;
        }
        answer($client);
    }
    return ($count, @waiting);
}

sub ends {
    my ($does, @waiting) = @_;
    for my $request (@waiting) {
        my ($client, $backend) = @$request;
        read_message($backend);
        send_bytes($backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") if $does eq 'answers';
        close $backend;
        answer($client);
    }
}

# The number of requests that reach A in each step. `ends` waits longer than fail_timeout, in whole seconds as both count.
sub steps {
    my ($path) = @_;
    my ($count, @waiting, @counts);
    my $step = sub { push @counts, (count_on_a($path, @_))[0] };
    my $fail_timeout_passes = sub { sleep 6 };

    $step->(6, 'fails');
    $step->(4, 'fails');

    $fail_timeout_passes->();
    ($count, @waiting) = count_on_a($path, 8, 'waits');
    push @counts, $count;
    ends('fails', @waiting);
    $step->(4, 'answers');

    $fail_timeout_passes->();
    ($count, @waiting) = count_on_a($path, 8, 'waits');
    push @counts, $count;
    ends('answers', @waiting);
    $step->(8, 'answers');

    # One request starts before the failures and is answered after them.
    do { ($count, @waiting) = count_on_a($path, 1, 'waits') } until $count;
    $step->(6, 'fails');
    ends('answers', @waiting);
    $step->(4, 'answers');
    return "@counts";
}

run_tests;

__DATA__

=== a failing backend gets the same requests as in nginx
--- http
upstream static { server $TEST_NGINX_OWN_A max_fails=2 fail_timeout=4s; server $TEST_NGINX_TOOL_A max_fails=2 fail_timeout=4s; }
upstream routed { urlproxy_peers max_fails=2 fail_timeout=4s; }
--- server
location /static/ { proxy_pass http://static; }
--- pass: http://routed
--- redis
SADD prefix:hello http://$TEST_NGINX_OWN_A http://$TEST_NGINX_TOOL_A
--- perl
my $nginx = steps('/static/');
is($nginx, '2 0 1 0 1 4 2 0', 'of nginx');
is(steps('/hello/'), $nginx, 'and of the module');
--- timeout: 60
