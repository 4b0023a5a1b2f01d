using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Replicas;
using NopeGpt.Model.Storage;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Model.Tests;

/// <summary>Steps of a tiny model on any number of CPU replicas. The global batch of a step depends on the seed and the step alone.</summary>
internal static class ReplicaRun
{
    public const int Rows = 4, Length = 8;

    public static readonly ModelConfig Config = new()
    {
        VocabularySize = 61, EmbeddingDimensions = 32, NumQHeads = 4, NumKvHeads = 2, NumDecoderLayers = 2, ContextLength = Length,
    };

    public static ReplicaGroup Group(int count, Sharding sharding, OptimizerOptions optimizer, ModelConfig? config = null, ulong seed = 3) => new(
        new Decoder(config ?? Config, seed), optimizer, new() { Devices = [.. Enumerable.Repeat(CPU, count)], Sharding = sharding, Seed = seed });

    /// <summary>A row of a step's global batch, a few of whose targets do not count: another number in each row.</summary>
    public static (long[] Tokens, long[] Targets) Row(int seed, long step, int row)
    {
        Random random = new((seed * 1_000_003) + ((int)step * 1009) + row);
        long[] tokens = [.. Enumerable.Range(0, Length + 1).Select(_ => (long)random.Next(Config.VocabularySize))];
        long[] targets = tokens[1..];
        targets.AsSpan(0, row % 3).Fill(Decoder.IgnoredTarget);
        return (tokens[..Length], targets);
    }

    /// <summary>The part of one replica in one micro-batch: rows go round the micro-batches, and within one are dealt out to the replicas.</summary>
    public static MicroBatch Batch(int seed, long step, int replicas, int micros, int replica, int micro)
    {
        int rows = Rows / replicas / micros;
        (long[] Tokens, long[] Targets)[] parts = [.. Enumerable.Range(0, rows).Select(i => Row(seed, step, (((micro * replicas) + replica) * rows) + i))];
        return new(rows, Length, [.. parts.SelectMany(p => p.Tokens)], [.. parts.SelectMany(p => p.Targets)]);
    }

    public static StepResult Step(this ReplicaGroup group, long step, int micros = 1, int seed = 7, double rate = 3e-3, double maxNorm = 0.5) =>
        group.Step((replica, micro) => Batch(seed, step, group.Count, micros, replica, micro), micros, rate, maxNorm);

    public static List<StepResult> Steps(this ReplicaGroup group, int from, int to, int micros = 1, double rate = 3e-3) =>
        [.. Enumerable.Range(from, to - from).Select(step => group.Step(step, micros, rate: rate))];

    /// <summary>Every number of the state, in order.</summary>
    public static float[] Numbers(this ReplicaGroup group)
    {
        using TrainingState state = group.Capture();
        return [.. state.Parameters.Concat(state.Optimizer.Where(o => o.Name != "step")).OrderBy(t => t.Name, StringComparer.Ordinal).SelectMany(t => t.Tensor.data<float>().ToArray())];
    }
}
