using System.Net.Http.Json;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Jobs.Tests.Inference;

public sealed class ServerTests(ServerFixture server) : IClassFixture<ServerFixture>
{
    private const string Chat = "/v1/chat/completions", Text = "/v1/completions";

    private static object Ask(int maxTokens = 24, bool stream = false, ulong seed = 7, string? stop = null, string model = TinyStore.Run) =>
        new { model, messages = new[] { new { role = "user", content = "Once upon" } }, max_tokens = maxTokens, seed, stream, stop, repeat_penalty = 0 };

    private static string Content(JsonElement json) => json.GetProperty("choices")[0].GetProperty("message").GetProperty("content").GetString()!;

    private static string Finish(JsonElement json) => json.GetProperty("choices")[0].GetProperty("finish_reason").GetString()!;

    [Fact]
    public async Task A_chat_is_answered_with_usage_and_the_same_seed_gives_the_same_text()
    {
        (int status, JsonElement first) = await server.PostAsync(Chat, Ask());
        Assert.Equal(200, status);
        Assert.Equal("chat.completion", first.GetProperty("object").GetString());
        Assert.Equal(7, first.GetProperty("nopegpt").GetProperty("seed").GetInt32());
        JsonElement usage = first.GetProperty("usage");
        Assert.Equal(usage.GetProperty("total_tokens").GetInt32(), usage.GetProperty("prompt_tokens").GetInt32() + usage.GetProperty("completion_tokens").GetInt32());
        Assert.InRange(usage.GetProperty("completion_tokens").GetInt32(), 1, 24);
        Assert.NotEmpty(Content(first));
        Assert.Equal(Content(first), Content((await server.PostAsync(Chat, Ask())).Json));
        Assert.NotEqual(Content(first), Content((await server.PostAsync(Chat, Ask(seed: 8))).Json));
    }

    [Fact]
    public async Task A_stream_has_the_same_text_in_pieces_and_ends_with_reason_usage_and_done()
    {
        string whole = Content((await server.PostAsync(Chat, Ask())).Json);
        List<string> events = await server.StreamAsync(Chat, Ask(stream: true));
        Assert.Equal("[DONE]", events[^1]);
        JsonElement[] chunks = [.. events[..^1].Select(e => JsonDocument.Parse(e).RootElement)];
        Assert.All(chunks, c => Assert.Equal("chat.completion.chunk", c.GetProperty("object").GetString()));
        Assert.Equal("assistant", chunks[0].GetProperty("choices")[0].GetProperty("delta").GetProperty("role").GetString());
        Assert.Equal(whole, string.Concat(chunks[..^1].Select(c => c.GetProperty("choices")[0].GetProperty("delta").GetProperty("content").GetString())));
        Assert.True(chunks.Length > 5);
        Assert.Contains(Finish(chunks[^1]), new[] { "stop", "length" });
        Assert.True(chunks[^1].GetProperty("usage").GetProperty("completion_tokens").GetInt32() > 0);
        Assert.True(chunks[^1].GetProperty("nopegpt").GetProperty("tokens_per_second").GetDouble() > 0);
        Assert.True(chunks[^1].GetProperty("nopegpt").GetProperty("milliseconds_to_first_token").GetDouble() > 0);
    }

    [Fact]
    public async Task The_logarithms_of_the_tokens_probabilities_come_when_asked_for()
    {
        (_, JsonElement plain) = await server.PostAsync(Chat, Ask());
        Assert.Equal(JsonValueKind.Null, plain.GetProperty("choices")[0].GetProperty("logprobs").ValueKind);
        object chat = new { model = TinyStore.Run, messages = new[] { new { role = "user", content = "Once upon" } }, max_tokens = 6, seed = 7, min_p = 0.01, logprobs = true, top_logprobs = 2 };
        (int status, JsonElement json) = await server.PostAsync(Chat, chat);
        Assert.Equal(200, status);
        JsonElement[] content = [.. json.GetProperty("choices")[0].GetProperty("logprobs").GetProperty("content").EnumerateArray()];
        Assert.Equal(json.GetProperty("usage").GetProperty("completion_tokens").GetInt32(), content.Length);
        Assert.All(content, c => Assert.InRange(c.GetProperty("logprob").GetDouble(), -100, 0));
        Assert.All(content, c => Assert.Equal(2, c.GetProperty("top_logprobs").GetArrayLength()));
        Assert.Equal(Content(json), Encoding.UTF8.GetString([.. content.SelectMany(c => c.GetProperty("bytes").EnumerateArray().Select(b => b.GetByte()))]));

        (_, JsonElement text) = await server.PostAsync(Text, new { model = TinyStore.Run, prompt = "Once", max_tokens = 6, seed = 7, logprobs = 3 });
        JsonElement scores = text.GetProperty("choices")[0].GetProperty("logprobs");
        int count = text.GetProperty("usage").GetProperty("completion_tokens").GetInt32();
        foreach (string list in new[] { "tokens", "token_logprobs", "top_logprobs", "text_offset" }) Assert.Equal(count, scores.GetProperty(list).GetArrayLength());

        List<string> events = await server.StreamAsync(Text, new { model = TinyStore.Run, prompt = "Once", max_tokens = 6, seed = 7, logprobs = 3, stream = true });
        JsonElement[] streamed = [.. events[..^1].Select(e => JsonDocument.Parse(e).RootElement.GetProperty("choices")[0].GetProperty("logprobs")).Where(l => l.ValueKind == JsonValueKind.Object)];
        Assert.Equal(scores.GetProperty("token_logprobs").EnumerateArray().Select(l => l.GetDouble()), streamed.SelectMany(l => l.GetProperty("token_logprobs").EnumerateArray().Select(p => p.GetDouble())));
    }

    [Fact]
    public async Task A_stop_text_ends_the_reply_before_it()
    {
        string whole = Content((await server.PostAsync(Chat, Ask())).Json);
        string stop = whole.Substring(whole.Length / 2, 2);
        (_, JsonElement json) = await server.PostAsync(Chat, Ask(stop: stop));
        Assert.Equal(whole[..whole.IndexOf(stop, StringComparison.Ordinal)], Content(json));
        Assert.Equal("stop", Finish(json));
    }

    [Fact]
    public async Task A_plain_completion_continues_a_text_or_begins_one()
    {
        foreach (string prompt in new[] { "Once", "" })
        {
            (int status, JsonElement json) = await server.PostAsync(Text, new { model = $"{TinyStore.Run}/1", prompt, max_tokens = 8, seed = 3 });
            Assert.Equal(200, status);
            Assert.Equal("text_completion", json.GetProperty("object").GetString());
            Assert.NotEmpty(json.GetProperty("choices")[0].GetProperty("text").GetString()!);
        }
    }

    [Fact]
    public async Task A_text_longer_than_the_context_is_still_answered()
    {
        (int status, JsonElement json) = await server.PostAsync(Text, new { model = TinyStore.Run, prompt = string.Concat(Enumerable.Repeat("Once upon a time. ", 400)), max_tokens = 4 * TinyStore.TrainedContext });
        Assert.Equal(200, status);
        Assert.Equal(TinyStore.TrainedContext, json.GetProperty("usage").GetProperty("prompt_tokens").GetInt32());
    }

    [Fact]
    public async Task Replies_side_by_side_each_get_their_own_text()
    {
        string[] alone = new string[4];
        for (ulong seed = 0; seed < 4; seed++) alone[seed] = Content((await server.PostAsync(Chat, Ask(seed: seed))).Json);
        (int Status, JsonElement Json)[] together = await Task.WhenAll(Enumerable.Range(0, 4).Select(seed => server.PostAsync(Chat, Ask(seed: (ulong)seed))));
        Assert.Equal(alone, together.Select(t => Content(t.Json)));
    }

    [Fact]
    public async Task A_client_that_goes_away_ends_its_reply()
    {
        using HttpRequestMessage request = new(HttpMethod.Post, Text) { Content = JsonContent.Create(new { model = TinyStore.Run, prompt = "Once", max_tokens = 1_000_000, stream = true, stop = new[] { "never said" } }) };
        using (HttpResponseMessage response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead))
        {
            using Stream stream = await response.Content.ReadAsStreamAsync();
            Assert.True(await stream.ReadAsync(new byte[100]) > 0);
        }
        using CancellationTokenSource limit = new(TimeSpan.FromSeconds(20));
        while ((await server.HealthAsync()).GetProperty("active").GetInt32() > 0) await Task.Delay(20, limit.Token);
    }

    [Fact]
    public async Task A_diverged_model_ends_its_stream_with_an_error_and_the_server_goes_on()
    {
        server.Tiny.Add("20260101-000000-dddd", 5, TinyStore.Diverge);
        List<string> events = await server.StreamAsync(Chat, Ask(stream: true, model: "20260101-000000-dddd"));
        Assert.Contains("not a number", JsonDocument.Parse(events[^1]).RootElement.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
        (int status, JsonElement json) = await server.PostAsync(Chat, Ask(model: "20260101-000000-dddd"));
        Assert.Equal(500, status);
        Assert.Equal("server_error", json.GetProperty("error").GetProperty("type").GetString());
        Assert.Equal(200, (await server.PostAsync(Chat, Ask())).Status);
    }

    [Theory]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", 404, "model", "there is no model 'x'")]
    [InlineData("{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", 400, "model", "model is missing")]
    [InlineData("{\"model\":\"x\",\"messages\":[]}", 400, "messages", "messages must be a list")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"robot\",\"content\":\"a\"}]}", 400, "messages[0].role", "must be system, user or assistant")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\"}]}", 400, "messages[0].content", "must be a text")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", 400, "messages[0].content", "valid Unicode")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":-1}", 400, "temperature", "from 0 to 100, not -1")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":\"NaN\"}", 400, "temperature", "must be a number")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":NaN}", 400, null, "not JSON")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":1e999}", 400, "temperature", "must be a number")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_p\":0}", 400, "top_p", "top_p")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1.5}", 400, "max_tokens", "whole number")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":0}", 400, "max_tokens", "from 1 to")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":-1}", 400, "seed", "from 0 to 18446744073709551615")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stop\":[\"\"]}", 400, "stop", "of 1 to")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temprature\":1}", 400, "temprature", "did you mean temperature?")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":2}", 400, "n", "not supported")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_logprobs\":2}", 400, "top_logprobs", "needs logprobs: true")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"logprobs\":true,\"top_logprobs\":21}", 400, "top_logprobs", "from 0 to 20")]
    [InlineData("{\"model\":\"x\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"min_p\":1.5}", 400, "min_p", "from 0 to 1")]
    [InlineData("[1]", 400, null, "must be a JSON object")]
    [InlineData("{\"model\":", 400, null, "not JSON")]
    public async Task A_bad_request_is_told_what_is_wrong(string body, int status, string? param, string says)
    {
        using StringContent content = new(body, Encoding.UTF8, "application/json");
        using HttpResponseMessage response = await server.Http.PostAsync(Chat, content);
        JsonElement error = (await response.Content.ReadFromJsonAsync<JsonElement>()).GetProperty("error");
        Assert.Equal(status, (int)response.StatusCode);
        Assert.Equal(param, error.GetProperty("param").GetString());
        Assert.Contains(says, error.GetProperty("message").GetString(), StringComparison.Ordinal);
        Assert.Equal("invalid_request_error", error.GetProperty("type").GetString());
    }

    [Fact]
    public async Task Everything_wrong_is_named_at_once()
    {
        (_, JsonElement json) = await server.PostAsync(Text, new { prompt = 5, top_k = -1, stream = "yes" });
        string message = json.GetProperty("error").GetProperty("message").GetString()!;
        foreach (string field in new[] { "model", "prompt", "top_k", "stream" }) Assert.Contains(field, message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Bytes_that_are_no_text_are_refused()
    {
        using ByteArrayContent content = new([.. "{\"model\":\""u8, 0xff, 0xfe, .. "\"}"u8]);
        using HttpResponseMessage response = await server.Http.PostAsync(Text, content);
        Assert.Equal(400, (int)response.StatusCode);
        Assert.Contains("UTF-8", await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_body_beyond_the_limit_is_refused()
    {
        (int status, JsonElement json) = await server.PostAsync(Text, new { model = TinyStore.Run, prompt = new string('a', 9 << 20) });
        Assert.Equal(413, status);
        Assert.Contains("MiB", json.GetProperty("error").GetProperty("message").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_models_are_listed_newest_step_first()
    {
        JsonElement json = await server.Http.GetFromJsonAsync<JsonElement>("/v1/models");
        string[] ids = [.. json.GetProperty("data").EnumerateArray().Select(m => m.GetProperty("id").GetString()!).Where(i => i.StartsWith(TinyStore.Run, StringComparison.Ordinal))];
        Assert.Equal([TinyStore.Run, $"{TinyStore.Run}/000000002", $"{TinyStore.Run}/000000001"], ids);
    }

    [Fact]
    public async Task An_unknown_path_says_which_there_are()
    {
        using HttpResponseMessage response = await server.Http.GetAsync(new Uri("/v2/models", UriKind.Relative));
        Assert.Equal(404, (int)response.StatusCode);
        Assert.Contains("/v1/chat/completions", await response.Content.ReadAsStringAsync(), StringComparison.Ordinal);
    }
}
