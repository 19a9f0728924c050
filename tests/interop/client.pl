#!/usr/bin/perl
# A host that speaks OpenGNSP, written from the text of protocols/ alone. One line of JSON for each step.
#     client.pl --server HOST:PORT --ca FILE --cert FILE --key FILE --watch ID --service ID --credential TOKEN
#               --address ADDRESS --port PORT
#     client.pl --vectors vectors.json [--piece OCTETS]     what it makes of the vectors, in pieces of this length
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings 'experimental::signatures';
use FindBin;
use lib $FindBin::Bin;
use Getopt::Long;
use JSON::PP;
use List::Util 'first';
use OpenGNSP::Protocol;
use OpenGNSP::Vectors;
use OpenGNSP::View;
use Time::HiRes 'time';

$| = 1;
my $JSON = JSON::PP->new->canonical->utf8->allow_nonref->convert_blessed;
my %option = (piece => 65_536);
my @options = qw(vectors piece server ca cert key watch service credential address port);
GetOptions(\%option, map { "$_=s" } @options) or exit 2;
my $protocol = OpenGNSP::Protocol->new("$FindBin::Bin/../../protocols");
my ($session, $view);
my $digests = 0;    # digests of bookmarks that were those of the view

$option{vectors} ? vectors() : live();

sub step ($name, %facts) { say $JSON->encode({ step => $name, %facts }) }

sub vectors () {
    open my $file, '<:raw', $option{vectors} or die "$option{vectors}: $!\n";
    my $vectors = $JSON->decode(do { local $/; <$file> });
    say $JSON->encode(OpenGNSP::Vectors::results($protocol, $vectors, $option{piece}));
}

sub live () {
    require OpenGNSP::Session;    # IO::Socket::SSL is no core module
    $view = OpenGNSP::View->new($protocol, $option{watch});
    begin();
    my %listener = (service => $option{service}, address => $option{address}, port => 0 + $option{port});
    my %instance = (%listener, credential => $option{credential}, epoch => int(time * 1_000_000));
    my $registered = $session->ask({ type => 'register', %instance, metadata => { by => 'client.pl' } });
    step('registered', state => $registered->{state});
    pull();

    # Another listener of the service comes. It is reported, and the server finds that it is dead.
    my $other = follow(sub ($row) { $row->{port} != $option{port} });
    my %reported = map { $_ => $other->{$_} } qw(service address port);
    my $reported = $session->ask({ type => 'report', %reported, reporter => $option{watch}, detail => 'refused' });
    step('reported', state => $reported->{state});
    follow(sub ($row) { $row->{state} eq 'down' });

    eval { $session->ask({ type => 'pull', service => 'nothing.' . $option{watch} =~ s/.*\.//r }) };
    step('refused', code => $@ =~ s/:.*//sr);
    step('deregistered', state => $session->ask({ type => 'deregister', %instance })->{state});
    follow(sub ($row) { $row->{state} eq 'offline' });

    # The next session goes on where this one ends.
    $session->close;
    begin();

    # The service that is watched for comes to depend on more than fits into a notice, or into a frame.
    follow();
    pull();
    step('ended', digests => $digests);
    $session->close;
}

# A session that watches. The view goes on from what it holds, or is replaced by a snapshot.
sub begin () {
    $session = OpenGNSP::Session->open($protocol, %option, software => 'client.pl');
    my $welcome = $session->{welcome};
    step('welcome', version => $welcome->{version}, tls => $session->{socket}->get_sslversion =~ s/_/./r);
    my @since = $view->{store} ? (store => $view->{store}, since => $view->{revision}) : ();
    my $watching = $session->ask({ type => 'watch', services => [$option{watch}], resync => 1, digest => 1, @since });
    $view->{store} = $watching->{store};
    my $snapshot = $watching->{snapshot};
    $view->replace($snapshot) if $snapshot;
    my $is_new = $snapshot ? JSON::PP::true : JSON::PP::false;
    step('watching', topics => [sort keys $view->{topics}->%*], snapshot => $is_new);
    $session->acknowledge($view->{revision});
    follow(undef, 'bookmark');
}

sub pull () {
    my $pulled = $session->ask({ type => 'pull', service => $option{watch} });
    my @listeners = map { ($_->{listeners} // [])->@* } map { ($_->{services} // [])->@* } $pulled->{categories}->@*;
    my $own = first { $_->{port} == $option{port} } @listeners;
    step('pulled', listeners => scalar @listeners, own => $own, parts => $session->{end}{part_count});
}

# Apply what is pushed until a notice brings the wanted row; without a wish, until a resync or a bookmark.
sub follow ($wanted = undef, $last = 'resync') {
    while (my $pushed = $session->pushed) {
        my $type = $pushed->{type};
        if ($type eq 'notice') {
            my ($revision, $operation, $row) = $pushed->{change}->@{qw(revision operation row)};
            $view->apply($pushed) or die "a notice before $revision is missing\n";
            step('notice', revision => $revision, operation => $operation, row => $row);
            acknowledge();
            return $row if $wanted && $wanted->($row);
        }
        elsif ($type eq 'resync') {
            $view->replace($pushed->{snapshot});
            step('resync', rows => scalar keys $view->{rows}->%*, parts => $session->{end}{part_count});
            acknowledge();
        }
        elsif ($type eq 'bookmark') {
            $view->{revision} = $pushed->{revision};
            compare($pushed->{digest}) if $pushed->{digest};
        }
        return if !$wanted && $type eq $last;
    }
}

sub acknowledge () {
    $session->acknowledge($view->{revision});
    step('acknowledged', revision => $view->{revision});
}

sub compare ($digest) {
    die "the view differs from the digest of a bookmark\n" if $view->digest ne $digest;
    $digests++;
}
