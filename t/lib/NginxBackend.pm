# A second nginx as backend, for tests that need a real server: TLS, HTTP/2.
package NginxBackend;

use v5.10.1;
use strict;
use warnings;

use Exporter 'import';
use IO::Socket::INET ();
use Test::Nginx::Socket ();
use UrlproxyTest;

our @EXPORT = qw(certificate_files with_nginx_backend);

# For a section `user_files`: key.pem and cert.pem, created before nginx reads its configuration.
sub certificate_files {
    require File::Temp;
    my $dir = File::Temp->newdir;
    system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=fixed.example -days 2 -keyout $dir/key.pem -out $dir/cert.pem >$dir/openssl.log 2>&1") == 0
        or die 'openssl req';
    my $read = sub { open my $file, '<', "$dir/$_[0]" or die; local $/; <$file> };
    return [map { [$_, $read->($_)] } 'key.pem', 'cert.pem'];
}

# Runs code with the port of a second nginx that has these lines in its server block. DIR in them is the directory of the
# block's files.
sub with_nginx_backend {
    my ($options, $lines, $code) = @_;
    my $dir  = Test::Nginx::Socket::html_dir();
    my $free = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "socket: $!\n";
    my $port = $free->sockport;
    close $free;
    $lines =~ s/\bDIR\b/$dir/g;
    mkdir "$dir/$_" or die "$dir/$_: $!\n" for 'backend', 'backend/logs';
    open my $conf, '>', "$dir/backend/nginx.conf" or die "$dir/backend/nginx.conf: $!\n";
    print $conf "pid nginx.pid; error_log error.log; daemon off; master_process off; events {} http { access_log off;\n",
        (map { "${_}_temp_path $_;\n" } qw(client_body proxy fastcgi uwsgi scgi)),
        "server { listen 127.0.0.1:$port $options;\n$lines\n} }";
    close $conf;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDERR, '>', "$dir/backend/stderr";
        exec $ENV{URLPROXY_BACKEND_NGINX} // $ENV{TEST_NGINX_BINARY} // 'nginx', '-p', "$dir/backend/", '-e', 'error.log', '-c', 'nginx.conf';
    }
    my $is_done = eval {
        (eventually { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }) or die "the second nginx does not listen\n";
        $code->($port);
        1;
    };
    my $error = $@;
    kill 'TERM', $pid;
    waitpid $pid, 0;
    die $error unless $is_done;
}

1;
