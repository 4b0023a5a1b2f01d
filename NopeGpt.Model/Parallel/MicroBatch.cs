using NopeGpt.Model.Native;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Replicas;

/// <summary>What one replica reads in one forward and backward pass. The arrays are read before the next one is asked for, and may be used again then.</summary>
/// <param name="Rows">Number of rows, B.</param>
/// <param name="Length">Tokens of a row, T.</param>
/// <param name="Tokens">Ids, [B x T], row by row.</param>
/// <param name="Targets">The id that follows each, [B x T]; <see cref="Decoder.IgnoredTarget"/> does not count.</param>
public sealed record MicroBatch(int Rows, int Length, long[] Tokens, long[] Targets)
{
    /// <summary>Of which sequence in its row each token is, [B x T], as <see cref="Packing"/> takes it. Null: each row is one sequence.</summary>
    public int[]? Sequences { get; init; }
}

/// <summary>A micro-batch on its replica's device.</summary>
internal sealed class MicroTensors : IDisposable
{
    private readonly Packing? _packing;

    public MicroTensors(MicroBatch batch, Device device)
    {
        long count = (long)batch.Rows * batch.Length;
        if (batch.Rows < 1 || batch.Length < 1 || batch.Tokens.Length != count || batch.Targets.Length != count)
            throw new ArgumentException($"A micro-batch of {batch.Rows} rows of {batch.Length} tokens needs {count} tokens and targets, and has {batch.Tokens.Length} and {batch.Targets.Length}.", nameof(batch));
        _packing = batch.Sequences is null ? null : new(batch.Sequences, batch.Rows, batch.Length);
        Labelled = count - batch.Targets.AsSpan().Count((long)Decoder.IgnoredTarget);
        Tokens_BT = tensor(batch.Tokens, [batch.Rows, batch.Length], ScalarType.Int64, device).DetachFromDisposeScope();
        Targets_BT = tensor(batch.Targets, [batch.Rows, batch.Length], ScalarType.Int64, device).DetachFromDisposeScope();
    }

    public Tensor Tokens_BT { get; }

    public Tensor Targets_BT { get; }

    /// <summary>Targets that count.</summary>
    public long Labelled { get; }

    /// <summary>The sum of its targets' losses, each weighted by `share`.</summary>
    public Tensor Loss(Decoder model, double share)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor share_BT = Targets_BT.ne(Scalars.Of(Decoder.IgnoredTarget)).to(ScalarType.Float32).mul_(Scalars.Of(share));
        return model.Loss(Tokens_BT, Targets_BT, share_BT, _packing).MoveToOuterDisposeScope();
    }

    public void Dispose()
    {
        Tokens_BT.Dispose();
        Targets_BT.Dispose();
    }
}
