using System.Text.Json.Serialization;

namespace NopeGpt.Data.Chat;

/// <summary>Why a record or a conversation is left out.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<DropReason>))]
public enum DropReason
{
    /// <summary>The record has another shape than its data set should have.</summary>
    BadRecord,

    /// <summary>It has no message, or only empty ones.</summary>
    Empty,

    /// <summary>Nobody replies in it, so there is nothing to learn.</summary>
    NoReply,

    /// <summary>It has as many tokens as a sample may have, or more, and the filter is on.</summary>
    TooLong,

    /// <summary>What fits into a sample has nothing to learn any more.</summary>
    ReplyCut,

    /// <summary>The chosen and the rejected reply are the same.</summary>
    SameReplies,
}

/// <summary>What became of the records of a chat set. Nothing is left out without being counted: Read = Kept + the sum of Dropped.</summary>
public sealed record ChatStatistics
{
    /// <summary>Problems that are kept with their place; of the others only the number is.</summary>
    public const int MostProblems = 20;

    /// <summary>Conversations, or records that should have been one.</summary>
    public long Read { get; init; }

    public long Kept { get; init; }

    /// <summary>Those left out, by reason; reasons that did not occur are absent.</summary>
    public IReadOnlyDictionary<DropReason, long> Dropped { get; init; } = new Dictionary<DropReason, long>();

    /// <summary>Kept conversations of which the end did not fit.</summary>
    public long Truncated { get; init; }

    /// <summary>Tokens of those ends.</summary>
    public long TokensCut { get; init; }

    /// <summary>Tokens of what is kept.</summary>
    public long Tokens { get; init; }

    /// <summary>Tokens of what is kept that count in the loss; 0 where that is not decided yet.</summary>
    public long LabelledTokens { get; init; }

    /// <summary>Conversations by their tokens before truncation: entry i counts those of 2^i to 2^(i+1) - 1 tokens.</summary>
    public IReadOnlyList<long> Lengths { get; init; } = [];

    /// <summary>The first problems, in order.</summary>
    public IReadOnlyList<RecordProblem> Problems { get; init; } = [];

    /// <summary>Both together, in this order.</summary>
    public ChatStatistics Add(ChatStatistics other)
    {
        ArgumentNullException.ThrowIfNull(other);
        Dictionary<DropReason, long> dropped = new(Dropped);
        foreach ((DropReason reason, long count) in other.Dropped) dropped[reason] = dropped.GetValueOrDefault(reason) + count;
        return new()
        {
            Read = Read + other.Read,
            Kept = Kept + other.Kept,
            Dropped = dropped,
            Truncated = Truncated + other.Truncated,
            TokensCut = TokensCut + other.TokensCut,
            Tokens = Tokens + other.Tokens,
            LabelledTokens = LabelledTokens + other.LabelledTokens,
            Lengths = [.. Enumerable.Range(0, Math.Max(Lengths.Count, other.Lengths.Count)).Select(i => Lengths.ElementAtOrDefault(i) + other.Lengths.ElementAtOrDefault(i))],
            Problems = [.. Problems.Concat(other.Problems).Take(MostProblems)],
        };
    }
}

/// <summary>Counts while reading. Not safe for concurrent use.</summary>
internal sealed class ChatCounter
{
    private readonly Dictionary<DropReason, long> _dropped = [];
    private readonly List<long> _lengths = [];
    private readonly List<RecordProblem> _problems = [];
    private long _kept, _truncated, _tokensCut, _tokens, _labelled;

    public void Drop(DropReason reason) => _dropped[reason] = _dropped.GetValueOrDefault(reason) + 1;

    public void Drop(RecordProblem problem)
    {
        Drop(problem.Reason);
        if (_problems.Count < ChatStatistics.MostProblems) _problems.Add(problem);
    }

    /// <summary>Counts a conversation of that many tokens in the histogram.</summary>
    public void Length(long tokens)
    {
        int bucket = tokens < 1 ? 0 : System.Numerics.BitOperations.Log2((ulong)tokens);
        while (_lengths.Count <= bucket) _lengths.Add(0);
        _lengths[bucket]++;
    }

    public void Keep(long tokens, long labelled = 0, long cut = 0)
    {
        _kept++;
        _tokens += tokens;
        _labelled += labelled;
        _tokensCut += cut;
        if (cut > 0) _truncated++;
    }

    public ChatStatistics Result() => new()
    {
        Read = _kept + _dropped.Values.Sum(),
        Kept = _kept,
        Dropped = new Dictionary<DropReason, long>(_dropped),
        Truncated = _truncated,
        TokensCut = _tokensCut,
        Tokens = _tokens,
        LabelledTokens = _labelled,
        Lengths = [.. _lengths],
        Problems = [.. _problems],
    };
}
