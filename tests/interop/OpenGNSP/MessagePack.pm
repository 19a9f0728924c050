# MessagePack. A value is read as a node, [kind, value], because Perl does not distinguish "1", 1 and 1.0.
package OpenGNSP::MessagePack;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings qw(experimental::signatures portable);    # 64-bit integers are a matter of course
use Encode ();
use Exporter 'import';
use JSON::PP ();

our @EXPORT_OK = qw(read_whole members write_integer write_float write_string write_octets write_array write_map);

use constant NESTING_MAX => 32;    # deeper than any message of version 1, and harmless for the stack

my %LENGTH = (    # first octet => kind, template and size of the length
    0xc4 => ['octets', 'C', 1], 0xc5 => ['octets', 'n', 2], 0xc6 => ['octets', 'N', 4],
    0xc7 => ['extension', 'C', 1], 0xc8 => ['extension', 'n', 2], 0xc9 => ['extension', 'N', 4],
    0xd9 => ['string', 'C', 1], 0xda => ['string', 'n', 2], 0xdb => ['string', 'N', 4],
    0xdc => ['array', 'n', 2], 0xdd => ['array', 'N', 4], 0xde => ['map', 'n', 2], 0xdf => ['map', 'N', 4],
);
my %NUMBER = (    # first octet => kind, template and size of the number
    0xca => ['float', 'f>', 4], 0xcb => ['float', 'd>', 8],
    0xcc => ['integer', 'C', 1], 0xcd => ['integer', 'n', 2], 0xce => ['integer', 'N', 4],
    0xcf => ['integer', 'Q>', 8],
    0xd0 => ['integer', 'c', 1], 0xd1 => ['integer', 's>', 2], 0xd2 => ['integer', 'l>', 4],
    0xd3 => ['integer', 'q>', 8],
);
my %CONSTANT = (0xc0 => ['nil', undef], 0xc2 => ['boolean', JSON::PP::false], 0xc3 => ['boolean', JSON::PP::true]);

sub take ($from, $length) {
    die "the body is cut\n" if $length > length($from->{octets}) - $from->{at};
    $from->{at} += $length;
    return substr $from->{octets}, $from->{at} - $length, $length;
}

sub read_node ($from, $depth = 0) {
    die "nested too deeply\n" if $depth > NESTING_MAX;
    my $first = ord take($from, 1);
    return ['integer', $first] if $first < 0x80;
    return ['integer', $first - 256] if $first >= 0xe0;
    return $CONSTANT{$first} if $CONSTANT{$first};
    if (my $number = $NUMBER{$first}) {
        my ($kind, $template, $size) = @$number;
        return [$kind, unpack $template, take($from, $size)];
    }
    my ($kind, $length);
    if    ($first < 0x90) { ($kind, $length) = ('map',    $first & 0x0f) }
    elsif ($first < 0xa0) { ($kind, $length) = ('array',  $first & 0x0f) }
    elsif ($first < 0xc0) { ($kind, $length) = ('string', $first & 0x1f) }
    elsif ($first >= 0xd4 && $first <= 0xd8) { ($kind, $length) = ('extension', 1 << ($first - 0xd4)) }
    else {
        my ($named, $template, $size) = @{ $LENGTH{$first} // die "no value of MessagePack\n" };
        ($kind, $length) = ($named, unpack $template, take($from, $size));
    }
    if ($kind eq 'array' || $kind eq 'map') {
        my @nodes;
        push @nodes, read_node($from, $depth + 1) for 1 .. $length * ($kind eq 'map' ? 2 : 1);
        return [$kind, \@nodes];
    }
    my $octets = take($from, $length + ($kind eq 'extension'));
    return [$kind, $kind eq 'string' ? Encode::decode('UTF-8', $octets, Encode::FB_CROAK) : $octets];
}

sub read_whole ($octets) {
    my $from = { octets => $octets, at => 0 };
    my $node = read_node($from);
    die "octets after the map\n" if $from->{at} < length $octets;
    return $node;
}

# The fields of a map by their names.
sub members ($node) {
    my ($kind, $nodes) = @$node;
    die "no map\n" if $kind ne 'map';
    my %members;
    for (my $at = 0; $at < @$nodes; $at += 2) {
        die "a key that is no string\n" if $nodes->[$at][0] ne 'string';
        $members{ $nodes->[$at][1] } = $nodes->[ $at + 1 ];
    }
    return \%members;
}

sub head ($count, $fixed, $fixed_max, @forms) {    # the shortest head of a string, array or map
    return chr($fixed | $count) if $count <= $fixed_max;
    my ($form) = grep { $count < $_->[2] } @forms;
    return pack "C$form->[1]", $form->[0], $count;
}

sub write_integer ($value) {
    return pack 'c', $value if $value >= -32 && $value < 0;
    return pack 'Cq>', 0xd3, $value if $value < 0;
    return head($value, 0, 0x7f, [0xcc, 'C', 1 << 8], [0xcd, 'n', 1 << 16], [0xce, 'N', 1 << 32], [0xcf, 'Q>', ~0]);
}

sub write_float ($value) { return pack 'Cd>', 0xcb, $value }

sub write_string ($text) {
    my $octets = Encode::encode('UTF-8', $text);
    return head(length $octets, 0xa0, 31, [0xd9, 'C', 1 << 8], [0xda, 'n', 1 << 16], [0xdb, 'N', 1 << 32]) . $octets;
}

sub write_octets ($octets) {
    return head(length $octets, 0, -1, [0xc4, 'C', 1 << 8], [0xc5, 'n', 1 << 16], [0xc6, 'N', 1 << 32]) . $octets;
}

sub write_array (@written) {
    return join '', head(scalar @written, 0x90, 15, [0xdc, 'n', 1 << 16], [0xdd, 'N', 1 << 32]), @written;
}

sub write_map (@written) {    # keys and values in turn
    return join '', head(@written / 2, 0x80, 15, [0xde, 'n', 1 << 16], [0xdf, 'N', 1 << 32]), @written;
}

1;
