using System.Diagnostics;
using System.Runtime.CompilerServices;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Inference;

/// <summary>Why a text ended.</summary>
internal enum FinishReason
{
    /// <summary>The model ended it, or a stop text came.</summary>
    Stop,

    /// <summary>It has as many tokens as were asked for.</summary>
    Length,
}

/// <summary>What to write.</summary>
/// <param name="Prompt">At least one id.</param>
/// <param name="StopIds">Ids that end the text; they are not part of it.</param>
/// <param name="Stops">Texts that end the text; they are not part of it.</param>
/// <param name="ContextLength">Tokens that the model sees at once; with more, the oldest are dropped.</param>
internal sealed record GenerationRequest(
    IReadOnlyList<int> Prompt, SamplingOptions Sampling, ulong Seed, int MaxTokens, IReadOnlyList<int> StopIds, IReadOnlyList<string> Stops, int ContextLength);

/// <summary>One step of a text.</summary>
/// <param name="Text">Whole characters that are ready; may be empty.</param>
/// <param name="Token">The token of this step; null at the end.</param>
/// <param name="Tokens">Tokens so far.</param>
/// <param name="Finish">Set in the last piece only.</param>
internal readonly record struct GenerationPiece(string Text, SampledToken? Token, int Tokens, FinishReason? Finish);

/// <summary>Continues a prompt, token by token. The command line and the HTTP interface use this one.</summary>
internal static class Generation
{
    /// <summary>Tokens of the prompt that are read in one turn: a long prompt holds up neither the other replies nor its own cancellation.</summary>
    private const int PromptChunk = 256;

    /// <summary>A seed where none was asked for. It fits a JavaScript number, so that a page can show it and send it back.</summary>
    public static ulong NewSeed() => (ulong)Random.Shared.NextInt64(1L << 53);

    /// <summary>The pieces as they come; the last one has a finish reason. Stops within one token when cancelled.</summary>
    /// <exception cref="InvalidDataException">The model's output is not a number.</exception>
    public static async IAsyncEnumerable<GenerationPiece> RunAsync(
        LoadedModel model, InferenceLane lane, GenerationRequest request, [EnumeratorCancellation] CancellationToken cancel = default)
    {
        Sampler sampler = new(request.Sampling, request.Seed);
        TextDecoder decoder = new(model.Tokenizer, after: request.Prompt[^1]);
        StopText stop = new(request.Stops);
        HashSet<int> ends = [.. request.StopIds];
        List<int> generated = [];
        KeyValueCache cache = await lane.RunAsync(() => new KeyValueCache(model.Decoder.Config, 1, request.ContextLength, model.Decoder.Device));
        try
        {
            IReadOnlyList<int> unread = request.Prompt;
            while (unread.Count > PromptChunk)
            {
                cancel.ThrowIfCancellationRequested();
                int[] chunk = [.. unread.Take(PromptChunk)];
                await lane.RunAsync(() => Read(model, lane, cache, chunk));
                unread = [.. unread.Skip(PromptChunk)];
            }
            while (generated.Count < request.MaxTokens)
            {
                cancel.ThrowIfCancellationRequested();
                int[] next = [.. unread];
                SampledToken token = await lane.RunAsync(() => Step(model, lane, cache, next, sampler, generated));
                if (ends.Contains(token.Id))
                {
                    yield return new(stop.Push(decoder.Flush()) + stop.Flush(), null, generated.Count, FinishReason.Stop);
                    yield break;
                }
                generated.Add(token.Id);
                unread = [token.Id];
                yield return new(stop.Push(decoder.Push(token.Id)), token, generated.Count, null);
                if (!stop.Found) continue;
                yield return new("", null, generated.Count, FinishReason.Stop);
                yield break;
            }
            yield return new(stop.Push(decoder.Flush()) + stop.Flush(), null, generated.Count, FinishReason.Length);
        }
        finally
        {
            await lane.RunAsync(() => { cache.Dispose(); return true; });
        }
    }

    private static bool Read(LoadedModel model, InferenceLane lane, KeyValueCache cache, int[] tokens)
    {
        lane.UseThreads(model.Threads);
        using DisposeScope scope = NewDisposeScope();
        model.Decoder.Forward(Row(model, tokens), cache);
        return true;
    }

    private static SampledToken Step(LoadedModel model, InferenceLane lane, KeyValueCache cache, int[] tokens, Sampler sampler, List<int> generated)
    {
        lane.UseThreads(model.Threads);
        using DisposeScope scope = NewDisposeScope();
        // Rows of a padded vocabulary beyond the tokenizer's are no text.
        Tensor logits_V = model.Decoder.Forward(Row(model, tokens), cache)[0].narrow(0, 0, model.Tokenizer.VocabularySize);
        return sampler.Next(logits_V, generated);
    }

    private static Tensor Row(LoadedModel model, int[] tokens) =>
        tensor(Array.ConvertAll(tokens, t => (long)t), ScalarType.Int64, model.Decoder.Device).unsqueeze(0);
}

/// <summary>How fast a text came.</summary>
internal sealed class GenerationClock
{
    private readonly long _start = Stopwatch.GetTimestamp();
    private long _first;
    private int _tokens;

    public double MillisecondsToFirstToken => _first == 0 ? 0 : Stopwatch.GetElapsedTime(_start, _first).TotalMilliseconds;

    /// <summary>Of the tokens after the first, which waits for the prompt to be read; 0 while there is but one.</summary>
    public double TokensPerSecond { get; private set; }

    public void Count(int tokens)
    {
        if (tokens == _tokens) return;
        _tokens = tokens;
        long now = Stopwatch.GetTimestamp();
        if (_first == 0) _first = now;
        else TokensPerSecond = (tokens - 1) / Stopwatch.GetElapsedTime(_first, now).TotalSeconds;
    }
}
