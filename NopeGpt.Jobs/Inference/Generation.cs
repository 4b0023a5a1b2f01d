using System.Diagnostics;
using System.Runtime.CompilerServices;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Inference;

/// <summary>What to write.</summary>
/// <param name="Prompt">At least one id.</param>
/// <param name="StopIds">Ids that end the text; they are not part of it.</param>
/// <param name="Stops">Texts that end the text; they are not part of it.</param>
/// <param name="ContextLength">Tokens that the model sees at once; with more, the oldest are dropped.</param>
/// <param name="Alternatives">How many of the likeliest tokens come with each.</param>
internal sealed record GenerationRequest(
    IReadOnlyList<int> Prompt, SamplingOptions Sampling, ulong Seed, int MaxTokens, IReadOnlyList<int> StopIds, IReadOnlyList<string> Stops, int ContextLength, int Alternatives = 0);

/// <summary>One step of a text.</summary>
/// <param name="Text">Whole characters that are ready; may be empty.</param>
/// <param name="Token">The token of this step; null at the end.</param>
/// <param name="Tokens">Tokens so far.</param>
/// <param name="Finish">Set in the last piece only.</param>
internal readonly record struct GenerationPiece(string Text, SampledToken? Token, int Tokens, FinishReason? Finish);

/// <summary>Continues a prompt, token by token. The command line and the HTTP interface use this one.</summary>
internal static class Generation
{
    /// <summary>A seed where none was asked for. It fits a JavaScript number, so that a page can show it and send it back.</summary>
    public static ulong NewSeed() => (ulong)Random.Shared.NextInt64(1L << 53);

    /// <summary>The pieces as they come; the last one has a finish reason. Stops within one token when cancelled.</summary>
    /// <exception cref="InvalidDataException">The model's output is not a number.</exception>
    public static async IAsyncEnumerable<GenerationPiece> RunAsync(
        LoadedModel model, InferenceLane lane, GenerationRequest request, [EnumeratorCancellation] CancellationToken cancel = default)
    {
        TextDecoder decoder = new(model.Tokenizer, after: request.Prompt[^1]);
        StopText stop = new(request.Stops);
        int tokens = 0;
        // Rows of a padded vocabulary beyond the tokenizer's are no text.
        BatchGeneration batch = new(model.Decoder, request.ContextLength, model.Tokenizer.VocabularySize);
        batch.Add(new(request.Prompt, request.Sampling, request.Seed, request.MaxTokens, request.StopIds, request.Alternatives));
        try
        {
            while (true)
            {
                cancel.ThrowIfCancellationRequested();
                foreach (TextPiece piece in await lane.RunAsync(() => Step(model, lane, batch)))
                {
                    if (piece.Token is { } token) yield return new(stop.Push(decoder.Push(token.Id)), token, ++tokens, null);
                    FinishReason? finish = stop.Found ? FinishReason.Stop : piece.Finish;
                    if (finish is null) continue;
                    yield return new(stop.Found ? "" : stop.Push(decoder.Flush()) + stop.Flush(), null, tokens, finish);
                    yield break;
                }
            }
        }
        finally
        {
            await lane.RunAsync(() => { batch.Dispose(); return true; });
        }
    }

    private static IReadOnlyList<TextPiece> Step(LoadedModel model, InferenceLane lane, BatchGeneration batch)
    {
        lane.UseThreads(model.Threads);
        return batch.Step();
    }
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
