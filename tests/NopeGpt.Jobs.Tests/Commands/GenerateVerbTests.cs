using System.Text.Json;
using NopeGpt.Jobs.Tests.Inference;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class GenerateVerbTests(TinyStore tiny) : IClassFixture<TinyStore>
{
    private string[] Arguments(params string[] more) => ["generate", "--checkpoint", tiny.Folder(TinyStore.Run, 1), "--prompt", "Once upon", "--seed", "5", "--max_tokens", "20", .. more];

    [Fact]
    public async Task The_continuation_is_on_stdout_and_the_figures_are_not()
    {
        (int code, string output, string errors) = await NopeGptProcess.RunAsync(Arguments());
        Assert.Equal(0, code);
        Assert.True(output.Length > 5);
        Assert.Contains("20 tokens, ", errors, StringComparison.Ordinal);
        Assert.Equal(output, (await NopeGptProcess.RunAsync(Arguments())).Output);
    }

    [Fact]
    public async Task As_JSON_it_has_tokens_text_probabilities_seed_and_reason()
    {
        (int code, string output, _) = await NopeGptProcess.RunAsync(Arguments("--json"));
        Assert.Equal(0, code);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        int count = json.GetProperty("tokens").GetArrayLength();
        Assert.Equal(20, count);
        Assert.Equal(count, json.GetProperty("probabilities").GetArrayLength());
        Assert.All(json.GetProperty("probabilities").EnumerateArray(), p => Assert.InRange(p.GetDouble(), 0, 1));
        Assert.Equal(5, json.GetProperty("seed").GetInt32());
        Assert.Equal("length", json.GetProperty("finish_reason").GetString());
        Assert.Equal((await NopeGptProcess.RunAsync(Arguments())).Output, json.GetProperty("text").GetString() + "\n");
    }

    [Fact]
    public async Task Alternatives_come_with_each_token_and_min_p_leaves_fewer_of_them()
    {
        (int code, string output, _) = await NopeGptProcess.RunAsync(Arguments("--json", "--alternatives", "3", "--temperature", "0"));
        Assert.Equal(0, code);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        int[] tokens = [.. json.GetProperty("tokens").EnumerateArray().Select(t => t.GetInt32())];
        JsonElement[][] alternatives = [.. json.GetProperty("alternatives").EnumerateArray().Select(a => a.EnumerateArray().ToArray())];
        Assert.Equal(tokens.Length, alternatives.Length);
        for (int i = 0; i < tokens.Length; i++)
        {
            Assert.Equal(3, alternatives[i].Length);
            Assert.Equal(tokens[i], alternatives[i][0].GetProperty("token").GetInt32());
            Assert.Equal(json.GetProperty("probabilities")[i].GetDouble(), alternatives[i][0].GetProperty("probability").GetDouble());
            Assert.True(alternatives[i][1].GetProperty("probability").GetDouble() <= alternatives[i][0].GetProperty("probability").GetDouble());
        }
        (_, output, _) = await NopeGptProcess.RunAsync(Arguments("--json", "--alternatives=3", "--min-p", "1"));
        Assert.All(JsonDocument.Parse(output).RootElement.GetProperty("alternatives").EnumerateArray(), a => Assert.Equal(1, a.GetArrayLength()));
    }

    [Fact]
    public async Task A_run_of_the_store_and_an_empty_prompt_will_do()
    {
        (int code, string output, _) = await NopeGptProcess.RunAsync("generate", "--root", tiny.Store.Root, "--checkpoint_path=" + TinyStore.Run, "--prompt", "", "--max-tokens=10", "--temperature", "0");
        Assert.Equal(0, code);
        Assert.NotEmpty(output.Trim());
    }

    [Fact]
    public async Task A_damaged_checkpoint_is_a_sentence_with_exit_code_2()
    {
        string folder = tiny.Add("20260101-000000-dddd", 1);
        await File.WriteAllTextAsync(Path.Combine(folder, "model.safetensors"), "damaged");
        (int code, string output, string errors) = await NopeGptProcess.RunAsync("generate", "--checkpoint", folder, "--prompt", "a", "--json");
        Assert.Equal((2, ""), (code, output));
        Assert.Contains("model.safetensors", errors, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_folder_that_is_no_checkpoint_is_told_what_it_lacks()
    {
        (int code, _, string errors) = await NopeGptProcess.RunAsync("generate", "--checkpoint", tiny.Store.Root, "--prompt", "a");
        Assert.Equal(2, code);
        Assert.Contains("is not a checkpoint: it has no config.json and no model.safetensors and no tokenizer.json", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_place_of_a_published_tokenizer_must_exist()
    {
        (int code, _, string errors) = await NopeGptProcess.RunAsync(Arguments("--tiktoken", tiny["no such place"]));
        Assert.Equal(2, code);
        Assert.Contains($"--tiktoken = {tiny["no such place"]}: there is no such file or folder", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Serve_answers_until_it_is_told_to_end()
    {
        string socket = tiny["process.sock"];
        using NopeGptProcess serve = new("serve", "--root", tiny.Store.Root, "--socket", socket);
        await serve.SaysAsync("serving the models of");
        using HttpClient http = ServerFixture.Client(socket);
        Assert.Contains($"\"process_id\":{serve.Id}", await http.GetStringAsync(new Uri("/health", UriKind.Relative)), StringComparison.Ordinal);
        serve.Signal("TERM");
        (int code, string output, _) = await serve.EndAsync();
        Assert.Equal((0, ""), (code, output));
        Assert.False(File.Exists(socket));
    }

    [Fact]
    public async Task Control_C_ends_a_long_text_cleanly()
    {
        // The likeliest tokens go round in a circle; drawn ones would come upon the end of the text some time.
        using NopeGptProcess generate = new("generate", "--checkpoint", tiny.Folder(TinyStore.Run, 1), "--prompt", "Once", "--max_tokens", "1000000", "--temperature", "0", "--repeat_penalty", "0");
        await generate.HasWrittenAsync(20);
        generate.Signal("INT");
        (int code, string output, string errors) = await generate.EndAsync();
        Assert.Equal(130, code);
        Assert.EndsWith("\n", output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }
}
