using System.Globalization;
using System.Text.Json;
using NopeGpt.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs;

/// <summary>How well a model predicts given targets.</summary>
/// <param name="Loss">Mean cross-entropy in nats over the targets that count; null where none does.</param>
/// <param name="Perplexity">exp(loss); null also where it is beyond the range of a double.</param>
/// <param name="LogProbabilities">ln p of each target; null for one that is left out.</param>
internal sealed record Score(double? Loss, double? Perplexity, IReadOnlyList<IReadOnlyList<double?>> LogProbabilities);

/// <summary>Rows of ids with the id that should follow each; <see cref="Decoder.IgnoredTarget"/> is left out. Rows may differ in length.</summary>
internal sealed record ScoreBatch(long[][] Tokens, long[][] Targets)
{
    // More tokens at once would only take memory: a row does not see the others.
    private const int TokensAtOnce = 1 << 13;
    private const int MostProblems = 20;

    /// <summary>Reads {"tokens": [[...]], "targets": [[...]]}.</summary>
    /// <exception cref="InvalidDataException">It is not that; the message names the file and everything that is wrong.</exception>
    public static ScoreBatch Read(string path)
    {
        JsonElement json;
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(path));
            json = document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{path}: not valid JSON ({e.Message.TrimEnd('.')}); give {{\"tokens\": [[...]], \"targets\": [[...]]}}", e);
        }
        List<string> problems = [];
        long[][] tokens = Rows(json, "tokens", problems), targets = Rows(json, "targets", problems);
        if (problems.Count == 0)
        {
            if (tokens.Length != targets.Length) problems.Add($"tokens has {tokens.Length} rows and targets {targets.Length}: give one row of targets for each of tokens");
            for (int row = 0; row < Math.Min(tokens.Length, targets.Length); row++)
            {
                if (tokens[row].Length == 0) problems.Add($"tokens[{row}] is empty: give at least one id");
                else if (tokens[row].Length != targets[row].Length) problems.Add($"tokens[{row}] has {tokens[row].Length} ids and targets[{row}] {targets[row].Length}: give one target for each id, {Decoder.IgnoredTarget} to leave it out");
            }
            if (tokens.Length == 0) problems.Add("tokens is empty: give at least one row");
        }
        return problems.Count == 0 ? new(tokens, targets) : throw Wrong(path, problems);
    }

    /// <summary>Scores every target.</summary>
    /// <param name="modelPath">Where the model is from, for errors.</param>
    /// <param name="path">Where the batch is from, for errors.</param>
    /// <exception cref="InvalidDataException">Ids or lengths do not fit the model, or its output is not a number.</exception>
    public Score Run(Decoder model, string modelPath, string path)
    {
        Check(model.AdaptedConfig, path);
        model.eval();
        double?[][] scores = new double?[Tokens.Length][];
        for (int first = 0; first < Tokens.Length;)
        {
            int longest = Tokens[first].Length, end = first + 1;
            while (end < Tokens.Length && Math.Max(longest, Tokens[end].Length) * (long)(end + 1 - first) <= TokensAtOnce) longest = Math.Max(longest, Tokens[end++].Length);
            ScoreRows(model, first, end, longest, scores);
            first = end;
        }
        double[] counted = [.. scores.SelectMany(row => row).OfType<double>()];
        if (counted.Any(double.IsNaN)) throw new InvalidDataException($"{modelPath}: the model's output is not a number: its training diverged or its file is damaged; take an earlier checkpoint.");
        double? loss = counted.Length == 0 ? null : Finite(0.0 - counted.Average());
        return new(loss, loss is { } l ? Finite(Math.Exp(l)) : null, [.. scores.Select(row => row.Select(p => p is { } value ? Finite(value) : null).ToArray())]);
    }

    private void ScoreRows(Decoder model, int first, int end, int longest, double?[][] scores)
    {
        using DisposeScope scope = NewDisposeScope();
        using IDisposable quiet = no_grad();
        // On the right, where no token that counts sees the filling.
        Tensor tokens_BT = Filled(Tokens[first..end], longest, 0).to(model.Device), targets_BT = Filled(Targets[first..end], longest, Decoder.IgnoredTarget).to(model.Device);
        float[] losses = model.LossPerToken(tokens_BT, targets_BT).cpu().data<float>().ToArray();
        for (int row = first; row < end; row++)
            scores[row] = [.. Targets[row].Select((target, i) => target == Decoder.IgnoredTarget ? (double?)null : 0.0 - losses[((row - first) * longest) + i])];
    }

    private void Check(ModelConfig config, string path)
    {
        List<string> problems = [];
        for (int row = 0; row < Tokens.Length && problems.Count < MostProblems; row++)
        {
            if (config.Positions == Positions.Learned && Tokens[row].Length > config.ContextLength)
                problems.Add($"tokens[{row}] has {Tokens[row].Length} ids: the model's context_length is {config.ContextLength}, give shorter rows");
            Ids("tokens", row, Tokens[row], id => id >= 0 && id < config.VocabularySize);
            Ids("targets", row, Targets[row], id => id == Decoder.IgnoredTarget || (id >= 0 && id < config.VocabularySize));
        }
        if (problems.Count > 0) throw Wrong(path, problems);

        void Ids(string name, int row, long[] ids, Predicate<long> fits)
        {
            int wrong = Array.FindIndex(ids, id => !fits(id));
            if (wrong >= 0) problems.Add(string.Create(CultureInfo.InvariantCulture, $"{name}[{row}][{wrong}] = {ids[wrong]}: give ids from 0 to {config.VocabularySize - 1}{(name == "targets" ? $" or {Decoder.IgnoredTarget}" : "")}"));
        }
    }

    private static Tensor Filled(long[][] rows, int length, long filling)
    {
        long[] all = new long[rows.Length * length];
        Array.Fill(all, filling);
        for (int row = 0; row < rows.Length; row++) rows[row].CopyTo(all, row * length);
        return tensor(all, [rows.Length, length]);
    }

    private static long[][] Rows(JsonElement json, string name, List<string> problems)
    {
        if (json.ValueKind != JsonValueKind.Object || !json.TryGetProperty(name, out JsonElement rows) || rows.ValueKind != JsonValueKind.Array)
        {
            problems.Add($"{name} is missing or no list: give a list of rows of ids");
            return [];
        }
        List<long[]> read = [];
        foreach (JsonElement row in rows.EnumerateArray())
        {
            List<long> ids = [];
            if (row.ValueKind != JsonValueKind.Array) problems.Add($"{name}[{read.Count}] is no list: give a list of ids");
            else
            {
                foreach (JsonElement id in row.EnumerateArray())
                {
                    if (id.ValueKind == JsonValueKind.Number && id.TryGetInt64(out long value)) ids.Add(value);
                    else if (problems.Count < MostProblems) problems.Add($"{name}[{read.Count}][{ids.Count}] is no whole number: give an id");
                }
            }
            read.Add([.. ids]);
        }
        return [.. read];
    }

    private static double? Finite(double value) => double.IsFinite(value) ? value : null;

    private static InvalidDataException Wrong(string path, List<string> problems) => new($"{path}: {string.Join("; ", problems.Take(MostProblems))}");
}
