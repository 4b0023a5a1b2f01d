using System.Text.Json;
using NopeGpt.Model;
using NopeGpt.Model.Native;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;

namespace NopeGpt.Jobs.Tests.Commands;

public sealed class ModelVerbsTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public ModelVerbsTests() => TorchRuntime.Load();

    public void Dispose() => _folder.Dispose();

    private static Task<(int Code, string Output, string Errors)> RunAsync(params string[] arguments) => NopeGptProcess.RunAsync(arguments);

    private string Model(ModelConfig config, ulong seed = 1)
    {
        using Decoder model = new(config, seed);
        string folder = _folder[$"model-{Guid.NewGuid():n}"];
        Checkpoint.SaveModel(folder, model);
        return folder;
    }

    private async Task<string> FileAsync(string content)
    {
        string file = _folder[$"{Guid.NewGuid():n}.json"];
        await File.WriteAllTextAsync(file, content);
        return file;
    }

    private static async Task<JsonElement> ScoreAsync(string model, string batch, params string[] more)
    {
        (int code, string output, string errors) = await RunAsync(["score", "--checkpoint", model, "--batch", batch, .. more]);
        Assert.True(code == 0, errors);
        return JsonDocument.Parse(output).RootElement;
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("nope-gpt-0", false)]
    [InlineData("nope-gpt-1", false)]
    [InlineData("lil-lm", false)]
    [InlineData("gpt2", false)]
    [InlineData("nope-gpt-0", true)]
    [InlineData("nope-gpt-1", true)]
    public async Task A_reference_model_scores_its_batch_as_the_reference_does(string name, bool adapted)
    {
        string folder = Needs.Data(Path.Combine("parity", name)), batch = Path.Combine(folder, "batch.json");
        JsonElement score = await ScoreAsync(folder, batch, adapted ? ["--adapter", folder] : []);

        using DisposeScope scope = torch.NewDisposeScope();
        using SafetensorsFile expected = SafetensorsFile.Open(Path.Combine(folder, adapted ? "lora-expected.safetensors" : "expected.safetensors"));
        torch.Tensor logP = torch.nn.functional.log_softmax(expected.Load("logits"), -1);
        JsonElement targets = JsonDocument.Parse(await File.ReadAllTextAsync(batch)).RootElement.GetProperty("targets"), found = score.GetProperty("log_probabilities");
        double sum = 0;
        int count = 0;
        for (int row = 0; row < targets.GetArrayLength(); row++)
        {
            Assert.Equal(targets[row].GetArrayLength(), found[row].GetArrayLength());
            for (int i = 0; i < targets[row].GetArrayLength(); i++)
            {
                int target = targets[row][i].GetInt32();
                if (target == Decoder.IgnoredTarget)
                {
                    Assert.Equal(JsonValueKind.Null, found[row][i].ValueKind);
                    continue;
                }
                Assert.Equal(logP[row, i, target].item<float>(), found[row][i].GetDouble(), 2e-4);
                sum -= logP[row, i, target].item<float>();
                count++;
            }
        }
        if (!adapted) Assert.Equal(expected.Load("loss").item<float>(), score.GetProperty("loss").GetDouble(), 1e-5);
        Assert.Equal(sum / count, score.GetProperty("loss").GetDouble(), 1e-4);
        Assert.Equal(Math.Exp(score.GetProperty("loss").GetDouble()), score.GetProperty("perplexity").GetDouble(), score.GetProperty("perplexity").GetDouble() * 1e-9);
    }

    [Fact]
    public async Task Rows_of_different_lengths_score_as_each_does_alone()
    {
        string model = Model(ModelPresets.Find("lil-lm-tiny")!.Config with { VocabularySize = 40 });
        string[] rows = ["[1, 2, 3, 4, 5]", "[7]", "[9, 8, 7]"], targets = ["[2, 3, -100, 5, 6]", "[-100]", "[8, 7, 6]"];
        JsonElement together = await ScoreAsync(model, await FileAsync($"{{\"tokens\": [{string.Join(",", rows)}], \"targets\": [{string.Join(",", targets)}]}}"));
        for (int row = 0; row < rows.Length; row++)
        {
            JsonElement alone = await ScoreAsync(model, await FileAsync($"{{\"tokens\": [{rows[row]}], \"targets\": [{targets[row]}]}}"));
            foreach ((JsonElement one, JsonElement other) in alone.GetProperty("log_probabilities")[0].EnumerateArray().Zip(together.GetProperty("log_probabilities")[row].EnumerateArray()))
            {
                Assert.Equal(one.ValueKind, other.ValueKind);
                if (one.ValueKind == JsonValueKind.Number) Assert.Equal(one.GetDouble(), other.GetDouble(), 1e-5);
            }
            // A batch in which nothing counts has no loss.
            if (row == 1) Assert.Equal(JsonValueKind.Null, alone.GetProperty("loss").ValueKind);
        }
    }

    [Theory]
    [InlineData("{\"tokens\": [[1, 99], [2]], \"targets\": [[-5, 3], [1]]}", "tokens[0][1] = 99: give ids from 0 to 39", "targets[0][0] = -5: give ids from 0 to 39 or -100")]
    [InlineData("{\"tokens\": [[1, 2], []], \"targets\": [[1], []]}", "tokens[0] has 2 ids and targets[0] 1", "tokens[1] is empty")]
    [InlineData("{\"tokens\": [[1, 2.5]]}", "tokens[0][1] is no whole number", "targets is missing")]
    [InlineData("{\"tokens\": [[1, 2", "not valid JSON")]
    [InlineData("[]", "tokens is missing or no list")]
    [InlineData("{\"tokens\": [[1,2,3,4,5,6,7,8,9]], \"targets\": [[1,2,3,4,5,6,7,8,9]]}", "the model's context_length is 8")]
    public async Task A_batch_that_does_not_fit_is_told_everything_that_is_wrong(string batch, params string[] says)
    {
        string model = Model(ModelPresets.Find("gpt2-tiny")!.Config with { VocabularySize = 40, ContextLength = 8 }), file = await FileAsync(batch);
        (int code, string output, string errors) = await RunAsync("score", "--checkpoint", model, "--batch", file);
        Assert.Equal((2, ""), (code, output));
        Assert.All(says.Append(file), text => Assert.Contains(text, errors, StringComparison.Ordinal));
        Assert.DoesNotContain("   at ", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Inspect_tells_layout_config_counts_and_memory()
    {
        string model = Model(ModelPresets.Find("nope-gpt-tiny")!.Config);
        (int code, string output, string errors) = await RunAsync("inspect", model, "--json", "--context_length", "100");
        Assert.True(code == 0, errors);
        JsonElement json = JsonDocument.Parse(output).RootElement;
        using Decoder decoder = Checkpoint.LoadModel(model);
        long count = decoder.CountParameters();
        Assert.Equal("nope-gpt", json.GetProperty("layout").GetString());
        Assert.Equal(count, json.GetProperty("parameters").GetProperty("total").GetInt64());
        JsonElement memory = json.GetProperty("memory");
        Assert.Equal(count * 4, memory.GetProperty("weights").GetInt64());
        Assert.Equal(count * 16, memory.GetProperty("training_adamw").GetInt64());
        Assert.Equal(100 * memory.GetProperty("cache_per_token").GetInt64(), memory.GetProperty("cache").GetInt64());
        (_, string words, _) = await RunAsync("inspect", model);
        Assert.Contains("embedding_dimensions", words, StringComparison.Ordinal);
        Assert.Contains(count.ToString("#,0", System.Globalization.CultureInfo.InvariantCulture), words, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("nope-gpt-tiny", "nope-gpt")]
    [InlineData("gpt2-tiny", "gpt2")]
    [InlineData("lil-lm-tiny", "llama")]
    public async Task What_was_exported_imports_as_the_same_model(string preset, string layout)
    {
        string model = Model(ModelPresets.Find(preset)!.Config with { VocabularySize = 60 }), exported = _folder["out"], back = _folder["back"];
        (int code, _, string errors) = await RunAsync("export", model, "--layout", layout, "--out", exported, "--max_shard_size", "1");
        Assert.True(code == 0, errors);
        (code, _, errors) = await RunAsync("import", exported, "--out", back);
        Assert.True(code == 0, errors);
        Assert.Contains("no tokenizer lies beside the model", errors, StringComparison.Ordinal);
        using Decoder first = Checkpoint.LoadModel(model), second = Checkpoint.LoadModel(back);
        Assert.Equal(first.CountParameters(), second.CountParameters());
        foreach (((string name, torch.Tensor one), (_, torch.Tensor other)) in first.Parameters().Zip(second.Parameters()))
            Assert.True(one.equal(other).all().item<bool>(), name);
    }

    [Fact]
    public async Task An_export_that_the_layout_cannot_express_leaves_nothing_behind()
    {
        string model = Model(ModelPresets.Find("lil-lm-tiny")!.Config);
        (int code, _, string errors) = await RunAsync("export", model, "--layout", "nope-gpt", "--out", _folder["out"]);
        Assert.Equal(2, code);
        Assert.Contains("positions = rope", errors, StringComparison.Ordinal);
        Assert.Contains("mlp = swiglu", errors, StringComparison.Ordinal);
        Assert.DoesNotContain("Parameter '", errors, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder["out"]));
    }

    [Fact]
    public async Task Everything_wrong_with_an_export_is_named_at_once()
    {
        string model = Model(ModelPresets.Find("nope-gpt-tiny")!.Config);
        (int code, _, string errors) = await RunAsync("export", model, "--layout", "gpt3", "--out", model, "--dtype", "int4", "--max_shard_size", "0");
        Assert.Equal(2, code);
        foreach (string says in new[] { "--layout = gpt3", "--out = ", "not empty", "--dtype = int4", "--max_shard_size = 0" }) Assert.Contains(says, errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_pickle_is_refused_with_the_way_to_convert_it()
    {
        string folder = _folder["pickled"];
        Directory.CreateDirectory(folder);
        await File.WriteAllTextAsync(Path.Combine(folder, "config.json"), "{\"model_type\": \"gpt2\"}");
        await File.WriteAllBytesAsync(Path.Combine(folder, "pytorch_model.bin"), [0x80, 0x02, 0x8a, 0x0a, 0x6c]);
        foreach (string source in new[] { folder, Path.Combine(folder, "pytorch_model.bin") })
        {
            (int code, _, string errors) = await RunAsync("import", source, "--out", _folder["out"]);
            Assert.Equal(2, code);
            Assert.Contains("pickle", errors, StringComparison.OrdinalIgnoreCase);
            Assert.Contains("save_file", errors, StringComparison.Ordinal);
            Assert.False(Directory.Exists(_folder["out"]));
        }
    }

    [Fact]
    public async Task Merging_an_adapter_gives_what_attaching_it_gives()
    {
        ModelConfig config = ModelPresets.Find("nope-gpt-tiny")!.Config with { VocabularySize = 40 };
        string model = Model(config), adapterFolder = _folder["adapter"], merged = _folder["merged"];
        using (Decoder decoder = Checkpoint.LoadModel(model))
        using (Adapter adapter = Adapter.Create(decoder, new LoraConfig { Rank = 2 }, seed: 3, vocabularySize: 44))
        {
            // B begins at zero, where an adapter changes nothing.
            using IDisposable quiet = torch.no_grad();
            foreach ((_, torch.Tensor parameter) in adapter.Parameters()) parameter.normal_(0, 0.2);
            adapter.Save(adapterFolder);
        }
        string batch = await FileAsync("{\"tokens\": [[1, 43, 3, 4]], \"targets\": [[2, 3, 41, 5]]}");
        (int code, _, string errors) = await RunAsync("merge", model, adapterFolder, "--out", merged);
        Assert.True(code == 0, errors);
        double attached = (await ScoreAsync(model, batch, "--adapter", adapterFolder)).GetProperty("loss").GetDouble();
        Assert.Equal(attached, (await ScoreAsync(merged, batch)).GetProperty("loss").GetDouble(), 1e-4);
        (code, _, errors) = await RunAsync("score", "--checkpoint", model, "--batch", batch);
        Assert.Equal(2, code);
        Assert.Contains("tokens[0][1] = 43", errors, StringComparison.Ordinal);
        (code, _, errors) = await RunAsync("merge", merged, adapterFolder, "--out", _folder["again"]);
        Assert.Equal(2, code);
        Assert.Contains("base", errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_adapter_knows_its_base_in_another_layout_too()
    {
        ModelConfig config = ModelPresets.Find("lil-lm-tiny")!.Config with { VocabularySize = 40, VocabularyMultipleOf = 64 };
        string model = Model(config), adapterFolder = _folder["adapter"];
        using (Decoder decoder = Checkpoint.LoadModel(model))
        using (Adapter adapter = Adapter.Create(decoder, new LoraConfig { Rank = 2 }, seed: 3))
        {
            using IDisposable quiet = torch.no_grad();
            foreach ((_, torch.Tensor parameter) in adapter.Parameters()) parameter.normal_(0, 0.2);
            adapter.Save(adapterFolder);
        }
        (int code, string output, string errors) = await RunAsync("export", model, "--layout", "llama", "--out", _folder["llama"], "--json");
        Assert.True(code == 0, errors);
        Assert.Equal(_folder["llama"], JsonDocument.Parse(output).RootElement.GetProperty("folder").GetString());
        string batch = await FileAsync("{\"tokens\": [[1, 2, 3, 4]], \"targets\": [[2, 3, 4, 5]]}");
        double ours = (await ScoreAsync(model, batch, "--adapter", adapterFolder)).GetProperty("loss").GetDouble();
        Assert.Equal(ours, (await ScoreAsync(_folder["llama"], batch, "--adapter", adapterFolder)).GetProperty("loss").GetDouble(), 1e-5);
    }

    [Fact]
    public async Task Weights_that_need_several_files_are_not_written_for_a_program_that_reads_one()
    {
        string model = Model(ModelPresets.Find("nope-gpt-tiny")!.Config with { VocabularySize = 8000 });
        (int code, _, string errors) = await RunAsync("export", model, "--layout", "nope-gpt", "--out", _folder["out"], "--max_shard_size", "1");
        Assert.Equal(2, code);
        Assert.Contains("reads one file", errors, StringComparison.Ordinal);
        Assert.False(Directory.Exists(_folder["out"]));
    }

    [Fact]
    public async Task A_place_that_cannot_be_written_is_a_sentence_and_a_link_to_an_empty_folder_is_that_folder()
    {
        string model = Model(ModelPresets.Find("nope-gpt-tiny")!.Config), file = await FileAsync("x");
        foreach (string place in new[] { Path.Combine(file, "x"), _folder[new string('n', 300)] })
        {
            (int wrong, _, string says) = await RunAsync("import", model, "--out", place);
            Assert.Equal(2, wrong);
            Assert.StartsWith("--out = ", says, StringComparison.Ordinal);
        }
        Directory.CreateDirectory(_folder["target"]);
        Directory.CreateSymbolicLink(_folder["link"], _folder["target"]);
        (int code, _, string errors) = await RunAsync("import", model, "--out", _folder["link"]);
        Assert.True(code == 0, errors);
        Assert.True(File.Exists(Path.Combine(_folder["target"], "model.safetensors")));
        Assert.NotNull(new DirectoryInfo(_folder["link"]).LinkTarget);
    }

    [Fact]
    public async Task A_signal_ends_a_command_that_waits_for_its_input()
    {
        string model = Model(ModelPresets.Find("nope-gpt-tiny")!.Config), pipe = _folder["pipe"];
        using (System.Diagnostics.Process make = System.Diagnostics.Process.Start("mkfifo", pipe)) await make.WaitForExitAsync();
        using NopeGptProcess score = new("score", "--checkpoint", model, "--batch", pipe);
        // It is past its start, where signals are not yet its own, when it opens the pipe: then a writer can open it too.
        Task<FileStream> opened = Task.Run(() => new FileStream(pipe, FileMode.Open, FileAccess.Write));
        await using FileStream writer = await opened.WaitAsync(TimeSpan.FromSeconds(60));
        score.Signal("TERM");
        Assert.Equal(130, (await score.EndAsync()).Code);
    }

    [NeedsFact(Needs.SharedData)]
    public async Task A_llama2_c_model_tells_its_stories()
    {
        string folder = _folder["stories"];
        (int code, _, string errors) = await RunAsync("import", Needs.Data("weights/stories260K.bin"), "--out", folder);
        Assert.True(code == 0, errors);
        // The folder of the file itself will do too: its tokenizer lies beside it.
        (code, string raw, errors) = await RunAsync("generate", "--checkpoint", Needs.Data("weights"), "--prompt", "Once upon a time", "--max_tokens", "20", "--temperature", "0", "--repeat_penalty", "0");
        Assert.True(code == 0, errors);
        (code, string output, errors) = await RunAsync("generate", "--checkpoint", folder, "--prompt", "Once upon a time", "--max_tokens", "120", "--temperature", "0", "--repeat_penalty", "0");
        Assert.True(code == 0, errors);
        // What llama2.c's own program writes at temperature 0 begins with a girl and her things, in whole words.
        Assert.Matches("there was a little (girl|boy|bird|cat|dog)", output);
        Assert.StartsWith(raw.TrimEnd('\n'), output, StringComparison.Ordinal);
        Assert.DoesNotContain("\uFFFD", output, StringComparison.Ordinal);
    }
}
