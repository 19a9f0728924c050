# What a host holds: the rows and the numbers of the topics in its interest. See "Push and resume" in the text.
package OpenGNSP::View;
use v5.26;
use strict;
use warnings;
use feature 'signatures';
no warnings 'experimental::signatures';
use List::Util qw(any max);
use OpenGNSP::Digest;

sub new ($class, $protocol, @services) {
    return bless { protocol => $protocol, services => \@services, revision => 0, topics => {}, rows => {} }, $class;
}

sub key ($self, $row) { return join ' ', $row->{row}, $row->@{ $self->{protocol}{key}{ $row->{row} }->@* } }

sub category_of ($service) { return $service =~ s/^[^.]*\.//r }

# The topics of a row, the one that orders its changes first.
sub topics_of ($row) {
    my $kind = $row->{row};
    return ($row->{name}) if $kind eq 'category';
    return ($row->{category}) if $kind eq 'dependency';
    return ($row->{service}) if $kind eq 'listener';
    return (category_of($row->{id}), $row->{id});
}

sub rows ($self, $kind) { return grep { $_->{row} eq $kind } values $self->{rows}->%* }

sub interest ($self) {
    my %member = map { category_of($_) => 1 } $self->{services}->@*;
    my %used = map { $_->{on} => 1 } grep { $member{ $_->{category} } } $self->rows('dependency');
    my @services = grep { $used{ category_of($_) } } map { $_->{id} } $self->rows('service');
    my @backups = grep { $_ } map { $_->{backup} } grep { $used{ $_->{name} } } $self->rows('category');
    return { %member, %used, map { $_ => 1 } @services, @backups };
}

# Replace all by a snapshot.
sub replace ($self, $snapshot) {
    $self->{rows} = { map { $self->key($_) => $_ } $snapshot->{rows}->@* };
    $self->{topics} = { $snapshot->{topics}->%* };
    $self->{revision} = $snapshot->{revision};
}

# Apply a notice. Returns false if a change before it is missing.
sub apply ($self, $notice) {
    my ($row, $revision, $previous) = $notice->{change}->@{qw(row revision previous)};
    my ($topic) = topics_of($row);
    my $held = $self->{topics}{$topic} // 0;
    if ($held < $revision) {
        return 0 if $held < $previous;
        $self->change($notice->{change}, $topic);
        $self->merge($notice->{snapshot}) if $notice->{snapshot};
        $self->forget if $row->{row} ne 'listener';
    }
    $self->{revision} = max($self->{revision}, $revision);
    return 1;
}

sub change ($self, $change, $topic) {
    my ($row, $revision, $removed) = $change->@{qw(row revision removed)};
    my $topics = $self->{topics};
    $topics->{$topic} = $revision;
    if ($removed || ($row->{state} // '') eq 'offline') { delete $self->{rows}{ $self->key($row) } }
    else                                                 { $self->{rows}{ $self->key($row) } = $row }
    $topics->{ $row->{id} } = $revision if $row->{row} eq 'service';
    delete $topics->{ $row->{id} } if $removed && $row->{row} eq 'service';
    delete $topics->{$topic} if $removed && $row->{row} eq 'category';
}

sub merge ($self, $snapshot) {
    my $topics = $self->{topics};
    my %new = map { $_ => 1 } grep { ($topics->{$_} // -1) <= $snapshot->{topics}{$_} } keys $snapshot->{topics}->%*;
    my $home = sub ($row) {    # a service whose category is not covered comes with the topic of its own id
        my ($topic, $own) = topics_of($row);
        return exists $snapshot->{topics}{$topic} || !$own ? $topic : $own;
    };
    delete $self->{rows}{ $self->key($_) } for grep { $new{ $home->($_) } } values $self->{rows}->%*;
    $self->{rows}{ $self->key($_) } = $_ for grep { $new{ $home->($_) } } $snapshot->{rows}->@*;
    $topics->{$_} = $snapshot->{topics}{$_} for keys %new;
}

# Drop the topics that are no longer in the interest, with their rows.
sub forget ($self) {
    my $interest = $self->interest;
    delete $self->{topics}{$_} for grep { !$interest->{$_} } keys $self->{topics}->%*;
    my @rows = values $self->{rows}->%*;
    delete $self->{rows}{ $self->key($_) } for grep { !any { $interest->{$_} } topics_of($_) } @rows;
}

# The digest of the host's part: a service row counts for the topic of its category only.
sub digest ($self) {
    my $interest = $self->interest;
    my @counted = grep { my ($topic) = topics_of($_); $interest->{$topic} } values $self->{rows}->%*;
    return OpenGNSP::Digest::sum(map { OpenGNSP::Digest::octets($self->{protocol}, $_->{row}, $_) } @counted);
}

1;
