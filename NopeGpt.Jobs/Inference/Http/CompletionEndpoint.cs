using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>POST /v1/chat/completions and /v1/completions.</summary>
internal sealed class CompletionEndpoint(ModelStore models, InferenceLane lane, ILogger logger)
{
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(500);

    public Task ChatAsync(HttpContext http) => AnswerAsync(http, chat: true);

    public Task TextAsync(HttpContext http) => AnswerAsync(http, chat: false);

    private async Task AnswerAsync(HttpContext http, bool chat)
    {
        using RequestBody body = await RequestBody.ReadAsync(http.Request, http.RequestAborted);
        CompletionRequest request = CompletionRequest.Read(body, chat);
        ReplyWriter reply = new(http.Response, request);
        try
        {
            using ModelLease lease = await AcquireAsync(request, reply, http.RequestAborted);
            await WriteAsync(lease.Model, request, reply, http.RequestAborted);
        }
        catch (OperationCanceledException) when (http.RequestAborted.IsCancellationRequested)
        {
            // Nobody listens any more.
        }
        catch (ModelException e) { await reply.ErrorAsync(ApiException.From(e)); }
        catch (InvalidDataException e) { await reply.ErrorAsync(new(StatusCodes.Status500InternalServerError, e.Message, code: "bad_output")); }
#pragma warning disable CA1031 // one reply fails, the others and the process go on
        catch (Exception e)
#pragma warning restore CA1031
        {
            logger.LogError(e, "A reply of {Model} failed", request.Model);
            await reply.ErrorAsync(new(StatusCodes.Status500InternalServerError, $"the reply failed: {e.Message.Split('\n')[0]}", code: "internal_error"));
        }
    }

    /// <summary>While a model is loaded for a stream, comments keep the client informed; a quick failure still gets its own status.</summary>
    private async Task<ModelLease> AcquireAsync(CompletionRequest request, ReplyWriter reply, CancellationToken cancel)
    {
        Task<ModelLease> acquiring = models.AcquireAsync(request.Model, cancel);
        while (request.Stream && await Task.WhenAny(acquiring, Task.Delay(Patience, CancellationToken.None)) != acquiring) await reply.CommentAsync("loading");
        return await acquiring;
    }

    private async Task WriteAsync(LoadedModel model, CompletionRequest request, ReplyWriter reply, CancellationToken cancel)
    {
        GenerationRequest generation = Prepare(model, request);
        StringBuilder whole = new();
        if (request.Stream) await reply.RoleAsync(cancel);
        await foreach (GenerationPiece piece in Generation.RunAsync(model, lane, generation, cancel))
        {
            reply.Clock.Count(piece.Tokens);
            if (piece.Token is { } token) reply.Scores?.Add(model.Tokenizer, token);
            if (!request.Stream) whole.Append(piece.Text);
            else if (piece.Text.Length > 0) await reply.PieceAsync(piece.Text, piece.Tokens, cancel);
            if (piece.Finish is not { } finish) continue;
            if (request.Stream) await reply.EndAsync(finish, generation.Prompt.Count, piece.Tokens, cancel);
            else await reply.WholeAsync(whole.ToString(), finish, generation.Prompt.Count, piece.Tokens, cancel);
        }
    }

    private static GenerationRequest Prepare(LoadedModel model, CompletionRequest request)
    {
        int context = model.Context(request.ContextLength);
        PromptTokens prompt = request.Turns is { } turns ? PromptTokens.Create(model.Tokenizer, turns, context) : PromptTokens.Continue(model.Tokenizer, request.Prompt ?? "", context);
        return new(prompt.Tokens, request.Sampling, request.Seed, request.MaxTokens, prompt.StopIds, request.Stops, context, request.LogProbabilities ?? 0);
    }
}
