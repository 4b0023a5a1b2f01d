using System.Text.Json;
using NopeGpt.Jobs.Tests.Inference;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class BeamSearchVerbTests(TinyStore tiny) : IClassFixture<TinyStore>
{
    private string[] Arguments(params string[] more) => ["beam-search", "--checkpoint_path", tiny.Folder(TinyStore.Run, 1), "--prompt", "Once upon", "--max_tokens", "5", .. more];

    [Fact]
    public async Task As_JSON_it_has_the_candidates_best_score_first()
    {
        (int code, string output, _) = await NopeGptProcess.RunAsync(Arguments("--json", "--num_candidates", "4", "--beam-width=6", "--length_penalty", "0.5", "--seed", "3"));
        Assert.Equal(0, code);
        JsonElement[] candidates = [.. JsonDocument.Parse(output).RootElement.GetProperty("candidates").EnumerateArray()];
        Assert.Equal(4, candidates.Length);
        double[] scores = [.. candidates.Select(c => c.GetProperty("score").GetDouble())];
        Assert.Equal(scores.OrderDescending(), scores);
        foreach (JsonElement candidate in candidates)
        {
            int tokens = candidate.GetProperty("tokens").GetArrayLength();
            Assert.InRange(tokens, 0, 5);
            Assert.Equal(candidate.GetProperty("log_probability").GetDouble() / Math.Sqrt(Math.Max(1, tokens)), candidate.GetProperty("score").GetDouble(), 1e-9);
            Assert.Equal(tokens == 0, candidate.GetProperty("text").GetString()!.Length == 0);
        }
    }

    [Fact]
    public async Task Without_JSON_it_prints_scores_and_texts_of_three()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Arguments());
        Assert.Equal((0, ""), (code, errors));
        foreach (string number in new[] { "1. score -", "2. score -", "3. score -" }) Assert.Contains(number, output, StringComparison.Ordinal);
        Assert.DoesNotContain("4. score", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Control_C_ends_a_long_search()
    {
        using NopeGptProcess search = new("beam-search", "--checkpoint", tiny.Folder(TinyStore.Run, 1), "--prompt", "Once", "--max_tokens", "1000000", "--length_penalty", "10");
        // It has come so far when it has opened libtorch.
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(60));
        while (!(await File.ReadAllTextAsync($"/proc/{search.Id}/maps", limit.Token)).Contains("libtorch_cpu", StringComparison.Ordinal)) await Task.Delay(20, limit.Token);
        search.Signal("INT");
        (int code, string output, string errors) = await search.EndAsync();
        Assert.Equal((130, ""), (code, output));
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }
}
