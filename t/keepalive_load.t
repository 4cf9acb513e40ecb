# Backends that close after each response without a word, or say something then, make no request fail: under load, GET and
# POST in turn, on many client connections.
use lib 't/lib';
use UrlproxyTest 'no_plan';

use IO::Select;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_REUSEADDR TCP_NODELAY);
use Time::HiRes ();

# A request that comes when the backend has had no time to close may fail, as it may at any server: so long.
our $unnoticed_seconds = 0.005;

# A process that answers requests of a listener, and then does what `manner` says. On GET /hello/late it says how many connections
# it closed too late for nginx to know, and how many it had.
sub serve_in_background {
    my ($listener, $manner) = @_;
    my $pid = fork // die "fork: $!\n";
    return $pid if $pid;
    $SIG{PIPE} = 'IGNORE';
    my ($late, $count, %text) = (0, 0);
    my $waiting = IO::Select->new($listener);
    while (1) {
        for my $socket ($waiting->can_read) {
            if ($socket == $listener) {
                my $new = $listener->accept or next;
                $count++;
                $waiting->add($new);
                next;
            }
            my $is_open = sysread $socket, $text{$socket}, 65536, length($text{$socket} // '');
            if (!$is_open) {
                delete $text{$socket};
                $waiting->remove($socket);
                close $socket;
                next;
            }
            my ($head, $body) = $text{$socket} =~ /\A(.*?\r\n)\r\n(.*)\z/s or next;
            next if $head =~ /^Content-Length: (\d+)/mi && length $body < $1;
            delete $text{$socket};
            my $says = $head =~ m{^GET /hello/late} ? "$late $count" : 'ok';
            my $begin = Time::HiRes::time();
            syswrite $socket, "HTTP/1.1 200 OK\r\nContent-Length: @{[length $says]}\r\n\r\n$says";
            if ($manner eq 'speaks') { syswrite $socket, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n" }
            $waiting->remove($socket);
            close $socket;
            $late++ if Time::HiRes::time() - $begin > $main::unnoticed_seconds;
        }
    }
}

# Asks GET and POST in turn on so many connections, until that many are answered; how often each status came.
sub ask_many {
    my ($connections, $number, $path) = @_;
    my (%statuses, %methods, $sent);
    my $ask = sub {
        my ($client) = @_;
        return if $sent++ >= $number;
        my $method = $methods{$client} = $sent % 2 ? 'GET' : 'POST';
        my $rest   = $sent % 2 ? "\r\n" : "Content-Length: 10\r\n\r\n0123456789";
        send_bytes($client, "$method $path HTTP/1.1\r\nHost: localhost\r\n$rest");
    };
    my $clients = IO::Select->new(map { to_nginx() } 1 .. $connections);
    $ask->($_) for $clients->handles;
    for (1 .. $number) {
        my ($client) = $clients->can_read($patience) or die "nothing comes any more\n";
        my $head = read_answer($client);
        $statuses{$methods{$client}}{ $head =~ m{^HTTP/1\.1 (\d+)} ? $1 : $head }++;
        if ($head =~ /^Connection: close/mi) {
            $clients->remove($client);
            $clients->add($client = to_nginx());
        }
        $ask->($client);
    }
    return \%statuses;
}

# Reads a response with a length; faster than `answer`.
sub read_answer {
    my ($client) = @_;
    my $text = '';
    while (1) {
        IO::Select->new($client)->can_read($patience) && sysread($client, $text, 65536, length $text) or die "no whole response: $text\n";
        my ($head, $body) = $text =~ /\A(.*?\r\n)\r\n(.*)\z/s or next;
        return $head if $head =~ /^Content-Length: (\d+)/mi && length $body >= $1;
    }
}

sub none_fails {
    my ($manner) = @_;
    my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 512) or die "socket: $!\n";
    my $pid      = serve_in_background($listener, $manner);
    redis('HSET', 'prefix:hello', '.*', 'http://127.0.0.1:' . $listener->sockport);
    close $listener;
    my $is_done = eval {
        (eventually { ask('GET /list')->{body} =~ /"hello"/ }) or die "no route\n";
        my $statuses = ask_many(16, 3000, '/hello/');
        my ($late, $count) = split ' ', ask('GET /hello/late')->{body};
        my $failed = 0;
        $failed += delete $_->{502} // 0 for values %$statuses;
        # What a backend says unasked may be taken for the response to the next request, if that can be repeated. The
        # connection then has served two, so that it may be taken once more before the backend closes it.
        my $misread = $manner eq 'speaks' ? delete $statuses->{GET}{408} // 0 : 0;
        cmp_ok($failed, '<=', $late + $misread, "$failed failed; of $count connections $late were closed late, $misread misread");
        is(join(' ', keys %{ $statuses->{$_} }), 200, "$_: nothing else went wrong") for qw(GET POST);
        cmp_ok($count, '>', 100, "$count connections");
        1;
    };
    my $error = $@;
    kill 'TERM', $pid;
    waitpid $pid, 0;
    die $error unless $is_done;
}

run_tests;

__DATA__

=== closing at once
--- upstream
urlproxy_keepalive 64;
--- perl
none_fails('closes');



=== saying something before they close
--- upstream
urlproxy_keepalive 64;
--- perl
none_fails('speaks');



=== bodies that are passed on as they come
--- upstream
urlproxy_keepalive 64;
--- location
proxy_request_buffering off;
--- perl
none_fails('closes');



=== no request is sent twice
--- upstream
urlproxy_keepalive 64;
--- location
proxy_next_upstream off;
--- perl
none_fails('closes');
